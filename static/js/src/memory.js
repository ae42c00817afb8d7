// What the pages of an origin tell each other, through localStorage: which transports opened and which were left, for
// each mount point, and when one polled last. Without localStorage every page is on its own.

const WORKED = 86400000; // ms; that long it counts that a transport has opened
const LEFT_FIRST = 300000, LEFT_MOST = 3600000; // ms until one that was left is tried again
const LAST_POLL = "__mbLastAjax"; // message-bus-client's name for it

/** `baseUrl`: asked at each use. */
export function makeMemory({ get, wallClock }, baseUrl) {
  let own = {}; // transport -> {worked: time, left: time, gap: ms}

  function stored(key, value) {
    try {
      const storage = get("localStorage");
      if (value) storage.setItem(key, JSON.stringify(value));
      return JSON.parse(storage.getItem(key));
    } catch {
      return null; // forbidden, full or not there
    }
  }

  /** What is known of a transport; `change`: and from now on. */
  function known(name, change) {
    const key = `messagebus:${baseUrl()}`, all = stored(key) || own, one = all[name] || {};
    if (change) stored(key, (own = { ...own, ...all, [name]: { ...one, ...change } }));
    return one;
  }

  /** A time that lies ahead is of a clock that was set back since: it says nothing. */
  const since = (at) => (at <= wallClock() ? wallClock() - at : NaN);

  return {
    hasWorked: (name) => since(known(name).worked) < WORKED,
    worked: (name) => since(known(name).worked) < WORKED / 24 || known(name, { worked: wallClock() }),
    /** Whether it was left since it last settled. */
    isOnProbation: (name) => !!known(name).gap,
    /** Whether it was left, and it is not yet time to try it again. */
    isLeft: (name) => since(known(name).left) < Math.min(known(name).gap, LEFT_MOST),
    leave: (name) => known(name, { left: wallClock(), gap: Math.min(known(name).gap * 2 || LEFT_FIRST, LEFT_MOST) }),
    forgive: (name) => known(name).gap && known(name, { gap: 0 }),
    /** Milliseconds since any page polled. */
    sinceLastPoll: () => since(stored(LAST_POLL)),
    polled: () => stored(LAST_POLL, wallClock()),
  };
}
