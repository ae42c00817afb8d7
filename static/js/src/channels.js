// The channels that are followed: positions, subscriptions, and what a batch does to them. No I/O, no clock.
//
// An entry has the position that its channel is asked from; each subscription has its own. One that begins earlier than
// its channel stands waits (`start`) until the channel is asked again from there (`activate`).

import { check, isFunction } from "./check.js";
import { makeSubscription } from "./subscription.js";

const isId = (position) => typeof position === "number" && position >= 0;

/** Whether a name is that of a channel, or a pattern, such as `/news/*`, which has it. */
const matches = (name, channel) => name === channel || (/\*$/.test(name) && channel.startsWith(name.slice(0, -1)));

/** Channel -> position, of entries. */
export const positionsOf = (entries) => Object.fromEntries(entries.map(({ channel, position }) => [channel, position]));

/**
 * `changed`: called when there is something else to ask for. `refused(entry, refusal)`: called when a channel is refused.
 * What a connection was asked for (`asked`) is a Map from channels to {entry, position}; null for one that it was told to leave.
 */
export function makeChannels(changed, refused) {
  const followed = new Map(); // channel -> entry; one that was left, and is followed again later, is another object
  const leaving = new Map(); // left, and the server was not told yet
  const pagePositions = {}; // where channels stood when the page was made, until they have moved
  const channels = { followed, pagePositions }; // epoch: the life of the store that positions are of

  const waits = ({ subscriptions }) => subscriptions.some(({ start }) => start !== undefined);
  const isFollowed = (entry) => entry && followed.get(entry.channel) === entry;

  function add(channel, fn, options) {
    const { lastId, onRefused = null } = options?.constructor === Object ? options : { lastId: options };
    const known = followed.get(channel) || leaving.get(channel);
    const position = lastId ?? pagePositions[channel] ?? -1;
    // Of names the server refuses more, by a refusal of the channel.
    check(/^\//.test(channel), "channel", channel);
    check(isFunction(fn), "callback", fn);
    check(Number.isSafeInteger(position) || /^@\d+$/.test(position), "lastId", position);
    const entry = known || { channel, position, subscriptions: [], queued: 0 };
    const subscription = makeSubscription(entry, fn, onRefused, remove);
    // Where the channel is, or where it was said to begin.
    const stands = entry.head ?? entry.position;
    if (!known || lastId == null) subscription.after = entry.head;
    else if (lastId === -1 && entry.isJoined) subscription.after = entry.position;
    else if (isId(lastId) && isId(stands) && lastId >= stands) subscription.after = lastId;
    else if (entry.isJoined || lastId !== entry.position) subscription.start = lastId;
    entry.subscriptions.push(subscription);
    leaving.delete(channel);
    followed.set(channel, entry);
    if (!entry.refused?.retry) entry.refused = undefined;
    changed();
    return subscription.handle;
  }

  function remove(channel, fn) {
    const entry = followed.get(channel);
    const kept = entry?.subscriptions.filter((one) => fn && one.fn !== fn && one.handle !== fn);
    if (kept?.length === entry?.subscriptions.length) return false;
    entry.subscriptions = kept;
    if (!kept.length) {
      followed.delete(channel);
      leaving.set(channel, entry);
      changed();
    }
    return true;
  }

  /** As `remove`; a `*` at the end stands for every channel that begins so. */
  function removeMatching(channel, fn) {
    return [...followed.keys()].filter((name) => matches(channel, name) && remove(name, fn)).length > 0;
  }

  // ---- what to ask for ----

  /** Entries to ask for. */
  const wanted = () => [...followed.values()].filter((entry) => !entry.refused);

  /** The position that a channel has to be asked from again for a subscription that waits; undefined where there is none. */
  function restart({ subscriptions, position, head, queued }) {
    const start = subscriptions.find((one) => one.start !== undefined && one.start !== -1)?.start;
    // Those who are in are told apart from those who wait by ids. Until there are some, and until they were given what
    // has come, the others wait.
    const isFree = subscriptions.every((one) => one.start !== undefined);
    return isFree || (isId(position) && !queued && !(head > position)) ? start : undefined;
  }

  /** What to ask the server for an entry. */
  function request(entry) {
    const start = restart(entry);
    return { entry, channel: entry.channel, start, position: start ?? entry.position };
  }

  /** Lets those in who wait for the start of a request. What is received from now on begins there. */
  function activate({ entry, start }) {
    if (start === undefined) return;
    for (const one of entry.subscriptions)
      if (one.start === start) Object.assign(one, { start: undefined, after: isId(start) ? start : undefined });
      else if (one.start === undefined && isId(entry.position)) one.after ??= entry.position;
    entry.position = start;
  }

  /** What a new connection is asked for. `takesOver`: nothing else brings messages meanwhile. */
  function ask(takesOver) {
    return new Map(wanted().map((entry) => {
      if (takesOver) activate(request(entry));
      return [entry.channel, { entry, position: entry.position }];
    }));
  }

  /** What a connection has to be asked for, also again from an earlier position, and what it brings to nobody. */
  function compare(asked) {
    leaving.clear();
    return {
      needed: wanted().filter((entry) => asked.get(entry.channel)?.entry !== entry || restart(entry) !== undefined),
      removed: [...asked.keys()].filter((channel) => asked.get(channel) && !isFollowed(asked.get(channel).entry)),
    };
  }

  // ---- what the server answers ----

  function joined({ entry }) {
    if (!isFollowed(entry)) return;
    entry.isJoined = true;
    entry.renewed = entry.refused = undefined;
    for (const one of entry.subscriptions) {
      if (one.start === -1) Object.assign(one, { start: undefined, after: entry.position });
      one.settle();
    }
    if (waits(entry)) changed();
  }

  /** `refusals`: [channel, {code, message, retry, retry_after}]. */
  function acceptRefusals(refusals, asked) {
    for (const [channel, refusal] of refusals) {
      const entry = asked.get(channel)?.entry;
      asked.delete(channel);
      if (isFollowed(entry)) refused(entry, refusal);
    }
  }

  /** A status is the channel's position, a gap is {after, before}. */
  function acceptNotice({ entry, position: askedFrom }, value, deliver) {
    const { position } = entry, gap = value.before && value, isNew = gap && gap.after === null;
    // After a gap: the next connection must not hear of it again, even if nothing follows.
    const next = gap ? gap.before - 1 : value;
    // Positions move on. Back only where the answer is to the position that was asked from: it lies beyond the channel's end.
    if (!(next > position || !isId(position) || position === askedFrom || isNew)) return;
    if (next < position || isNew) {
      entry.head = undefined;
      for (const one of entry.subscriptions) one.after = undefined;
    }
    move(entry, next);
    if (gap) deliver(entry, { gap });
  }

  function move(entry, position) {
    entry.position = position;
    delete pagePositions[entry.channel];
    if (waits(entry)) changed();
  }

  /**
   * Takes a batch of a connection. `deliver(entry, {message, id} or {gap})` is called in order. Says of the link whether a position
   * has moved (`progress`), and when to come back (`reconnect`, ms) if the server has said so.
   */
  function accept(batch, link, deliver) {
    const { asked } = link;
    // isFollowed: not if it was left, and followed again, since this connection began; that is for the next.
    for (const message of batch) {
      const { channel, data, global_id, message_id, transient } = message;
      if (channel === "/__refused") acceptRefusals(Object.entries(data), asked);
      else if (channel === "/__status" || channel === "/__gap")
        for (const [name, value] of Object.entries(data)) {
          const one = isFollowed(asked.get(name)?.entry) && asked.get(name), before = one?.entry?.position;
          if (name === "__epoch") channels.epoch = value;
          else if (name === "__reconnect") link.reconnect = Math.min(value, 60000) || 0;
          else if (name === "__moving") link.moving = value;
          else if (one) acceptNotice(one, value, deliver);
          link.progress ||= one?.entry?.position !== before;
        }
      else {
        // Its own channel's, or a pattern's, whose positions are global ids; what is being left keeps its place, and takes it.
        const name = [...asked.keys()].find((one) => matches(one, channel));
        const entry = asked.get(name)?.entry, id = name === channel ? message_id : global_id;
        if (!isFollowed(entry)) continue;
        if (!(entry.position >= id)) move(entry, id); // "@g" compares as false
        // A duplicate; but what is transient has the id of the last message before it.
        else if (!transient) continue;
        link.progress = true;
        deliver(entry, { message, id });
      }
    }
  }

  return Object.assign(channels, {
    isFollowed, add, removeMatching, wanted, request, activate, ask, compare, joined, accept, acceptRefusals,
  });
}
