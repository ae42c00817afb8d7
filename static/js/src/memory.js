// What the pages of an origin tell each other, through localStorage: which transports opened and which were left, for
// each mount point, and when one polled last. Without localStorage every page is on its own.

import { wallClock } from "./environment.js";

const WORKED = 86400000; // ms; that long it counts that a transport has opened
const LEFT_FIRST = 300000, LEFT_MOST = 3600000; // ms until one that was left is tried again
const LAST_POLL = "__mbLastAjax"; // message-bus-client's name for it

export function makeMemory(settings) {
  let own = {}; // transport -> {worked: time, left: time, gap: ms}

  function stored(key, value) {
    try {
      const storage = localStorage;
      if (value) storage.setItem(key, JSON.stringify(value));
      return JSON.parse(storage.getItem(key));
    } catch {
      return null; // forbidden, full or not there
    }
  }

  /** What is known of a transport; `change`: and from now on. */
  function known(name, change) {
    const key = `messagebus:${settings.baseUrl}`, all = stored(key) || own, one = all[name] || {};
    if (change) stored(key, (own = { ...own, ...all, [name]: { ...one, ...change } }));
    return one;
  }

  /** A time that lies ahead is of a clock that was set back since: it says nothing. */
  const since = (at) => (at <= wallClock() ? wallClock() - at : NaN);

  return {
    /** Whether it has worked, and was not left since it last settled. */
    isGood: (name) => since(known(name).worked) < WORKED && !known(name).gap,
    worked: (name) => known(name, { worked: wallClock() }),
    /** Whether it was left, and it is not yet time to try it again. */
    isLeft: (name) => since(known(name).left) < known(name).gap,
    leave: (name) => known(name, { left: wallClock(), gap: Math.min(known(name).gap * 2 || LEFT_FIRST, LEFT_MOST) }),
    forgive: (name) => known(name).gap && known(name, { gap: 0 }),
    /** Milliseconds since any page polled. */
    sinceLastPoll: () => since(stored(LAST_POLL)),
    polled: () => stored(LAST_POLL, wallClock()),
  };
}
