// The channels that are followed: positions, subscriptions, and what a batch does to them. No I/O, no clock.
//
// An entry has the position that its channel is asked from; each subscription has its own. One that begins earlier than
// its channel stands waits (`start`) until the channel is asked again from there (`activate`).

import { makeSubscription } from "./subscription.js";

const isId = (position) => typeof position === "number" && position >= 0;
const isNotice = /^\/__/;

/** Throws a TypeError that says what was expected. Of names the server refuses more, by a refusal of the channel. */
function check(channel, fn, position) {
  if (typeof channel !== "string" || channel[0] !== "/" || isNotice.test(channel))
    throw new TypeError(`expected a channel ("/name", not "/__..."), got ${channel}`);
  if (typeof fn !== "function") throw new TypeError(`expected a function, got ${fn}`);
  if (!Number.isSafeInteger(position) && !(typeof position === "string" && /^@\d+$/.test(position)))
    throw new TypeError(`expected lastId to be an integer or "@" and a global id, got ${position}`);
}

/** Channel -> position, of entries. */
export const positionsOf = (entries) => Object.fromEntries(entries.map(({ channel, position }) => [channel, position]));

/**
 * `changed`: called when there is something else to ask for. `refused(entry, refusal)`: called when a channel is refused.
 * What a connection was asked for (`asked`) is a Map from channels to {entry, position}; null for one that it was told to leave.
 */
export function makeChannels({ changed, refused }) {
  const followed = new Map(); // channel -> entry; one that was left, and is followed again later, is another object
  const leaving = new Map(); // left, and the server was not told yet
  const pagePositions = {}; // where channels stood when the page was made, until they have moved
  const channels = { followed, pagePositions, epoch: undefined }; // epoch: the life of the store that positions are of

  const waits = ({ subscriptions }) => subscriptions.some(({ start }) => start !== undefined);
  const isFollowed = (entry) => !!entry && followed.get(entry.channel) === entry;

  function add(channel, fn, options) {
    const { lastId, onRefused = null } = options?.constructor === Object ? options : { lastId: options };
    const known = followed.get(channel) || leaving.get(channel);
    const position = lastId ?? pagePositions[channel] ?? -1;
    check(channel, fn, position);
    const entry = known || { channel, position, subscriptions: [] };
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
    const all = channel.endsWith("*"), prefix = channel.slice(0, -1);
    const names = [...followed.keys()].filter((name) => (all ? name.startsWith(prefix) : name === channel));
    return names.map((name) => remove(name, fn)).includes(true);
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

  /** Lets those in who wait for this start. What is received from now on begins there. */
  function activate(entry, start) {
    for (const one of entry.subscriptions)
      if (one.start === start) Object.assign(one, { start: undefined, after: isId(start) ? start : undefined });
      else if (one.start === undefined && isId(entry.position)) one.after ??= entry.position;
    entry.position = start;
  }

  /** What a new connection is asked for. `takesOver`: nothing else brings messages meanwhile. */
  function ask(takesOver) {
    return new Map(wanted().map((entry) => {
      const start = restart(entry);
      if (takesOver && start !== undefined) activate(entry, start);
      return [entry.channel, { entry, position: entry.position }];
    }));
  }

  /** What a connection lacks, what it brings to nobody, and what has to be asked again from an earlier position. */
  function compare(asked) {
    leaving.clear();
    const isAsked = (entry) => asked.get(entry.channel)?.entry === entry;
    return {
      added: wanted().filter((entry) => !isAsked(entry)),
      removed: [...asked.keys()].filter((channel) => asked.get(channel) && !isFollowed(asked.get(channel).entry)),
      moved: wanted().filter((entry) => isAsked(entry) && restart(entry) !== undefined),
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

  /** `refusals`: channel -> {code, message, retry, retry_after}. */
  function acceptRefusals(refusals, asked) {
    for (const [channel, refusal] of Object.entries(refusals || {})) {
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
   * Takes a batch of a connection that was asked for `asked`. `deliver(entry, {message} or {gap})` is called in order.
   * Returns whether a position has moved (`progress`), and when to come back (`reconnect`, ms) if the server has said so.
   */
  function accept(batch, asked, deliver) {
    let reconnect, progress = false;
    // Not if it was left, and followed again, since this connection began: that is for the next.
    const find = (channel) => (isFollowed(asked.get(channel)?.entry) ? asked.get(channel) : undefined);
    for (const message of batch) {
      const { channel, data, message_id } = message;
      if (channel === "/__refused") acceptRefusals(data, asked);
      else if (channel === "/__status" || channel === "/__gap")
        for (const [name, value] of Object.entries(data)) {
          const one = find(name), before = one?.entry.position;
          if (name === "__epoch") channels.epoch = value;
          else if (name === "__reconnect") reconnect = Math.min(Math.max(+value, 0), 60000) || 0;
          else if (one) acceptNotice(one, value, deliver);
          progress ||= one?.entry.position !== before;
        }
      else {
        const entry = find(channel)?.entry;
        if (!entry || entry.position >= message_id) continue; // a duplicate; "@g" compares as false
        move(entry, message_id);
        progress = true;
        deliver(entry, { message });
      }
    }
    return { progress, reconnect };
  }

  return Object.assign(channels, {
    isFollowed, add, removeMatching, wanted, restart, activate, ask, compare, joined, accept, acceptRefusals,
  });
}
