// The channels that are followed: positions, callbacks, and what a batch does to them. No I/O, no clock.

/** Throws a TypeError that says what was expected. */
function check(channel, fn, position, given) {
  if (typeof channel !== "string" || !/^\/(?!__)/.test(channel))
    throw new TypeError(`expected a channel ("/name", not "/__..."), got ${channel}`);
  if (typeof fn !== "function") throw new TypeError(`expected a function, got ${fn}`);
  if (!Number.isSafeInteger(position) && !(typeof position === "string" && /^@\d+$/.test(position)))
    throw new TypeError(`expected lastId to be an integer or "@" and a global id, got ${given}`);
}

/** Channel -> position, of entries as they stand. */
export const positionsOf = (entries) => Object.fromEntries([...entries].map(([name, { position }]) => [name, position]));

export class Channels {
  /** Channel -> {position, callbacks}. A channel that is left and followed anew is another object. */
  followed = new Map();
  /** The life of the store that the positions are of; undefined where none was told. */
  epoch = undefined;
  /** Where channels stood when the page was made. */
  pagePositions = {};

  /** `changed`: called when a channel comes or goes. */
  constructor(changed) {
    this.changed = changed;
  }

  /** Adds a callback, and returns the function that removes it. */
  add(channel, fn, lastId) {
    const position = lastId ?? this.pagePositions[channel] ?? -1;
    check(channel, fn, position, lastId);
    delete this.pagePositions[channel];
    const callback = { fn, undo: () => this.remove(channel, callback.undo) };
    const entry = this.followed.get(channel);
    if (entry) entry.callbacks.push(callback);
    else {
      this.followed.set(channel, { position, callbacks: [callback] });
      this.changed();
    }
    return callback.undo;
  }

  /** Removes a callback, by its function or its undo; without one all of them. Says whether there was something to remove. */
  remove(channel, fn) {
    const entry = this.followed.get(channel);
    const kept = entry?.callbacks.filter((callback) => fn && callback.fn !== fn && callback.undo !== fn);
    if (kept?.length === entry?.callbacks.length) return false;
    entry.callbacks = kept;
    if (!kept.length) {
      this.followed.delete(channel);
      this.changed();
    }
    return true;
  }

  /** As `remove`; a `*` at the end stands for every channel that begins so. */
  removeMatching(channel, fn) {
    const all = channel.endsWith("*"), prefix = channel.slice(0, -1);
    const names = [...this.followed.keys()].filter((name) => (all ? name.startsWith(prefix) : name === channel));
    return names.map((name) => this.remove(name, fn)).includes(true);
  }

  /** What a connection that was asked for `asked` lacks, and what it brings to nobody. */
  compare(asked) {
    const added = [...this.followed].filter(([channel, entry]) => asked.get(channel) !== entry);
    const removed = [...asked.keys()].filter((channel) => asked.get(channel) && !this.followed.has(channel));
    return { added, removed };
  }

  /**
   * Takes a batch of a connection that was asked for `asked`. Returns what has to be delivered, in order, and whether a
   * position has moved (`progress`) and a message has come (`carried`).
   */
  accept(batch, asked) {
    if (!Array.isArray(batch)) throw new TypeError("the answer is not a batch");
    const result = { deliveries: [], progress: false, carried: false };
    // Not if it was left and followed anew since this connection began: that is for the next.
    const entryOf = (channel) => asked.get(channel) === this.followed.get(channel) && this.followed.get(channel);
    for (const message of batch) {
      const { channel, data, message_id } = message;
      if (channel === "/__status" || channel === "/__gap") {
        for (const [name, value] of Object.entries(data)) {
          if (name === "__epoch") this.epoch = value;
          const entry = entryOf(name);
          if (entry) this.#acceptNotice(entry, name, value, result);
        }
        continue;
      }
      const entry = entryOf(channel);
      if (!entry || entry.position >= message_id) continue; // a duplicate; "@g" compares as false
      entry.position = message_id;
      result.progress = result.carried = true;
      result.deliveries.push({ entry, channel, message });
    }
    return result;
  }

  /** A status is the channel's position, a gap is {after, before}. */
  #acceptNotice(entry, channel, value, result) {
    const gap = value.before && value;
    // After a gap: the next connection must not hear of it again, even if nothing follows.
    const position = gap ? gap.before - 1 : value;
    result.progress ||= entry.position !== position;
    entry.position = position;
    if (gap) result.deliveries.push({ entry, channel, gap });
  }
}
