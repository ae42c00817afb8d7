// The globals of the browser, the worker or Node that the client uses. Tests give their own.

const LONGEST = 2147483647; // ms; browsers fire longer timers at once

/** `given`: what stands in for globals, by name. A name given as undefined is a global that is missing. */
export function makeEnvironment(given = {}) {
  const get = (name) => (name in given ? given[name] : globalThis[name]);
  return {
    get,
    /** Milliseconds that only ever grow, for durations. */
    now: () => get("performance").now(),
    /** Milliseconds of the calendar, for what other pages read. It may be set back. */
    wallClock: () => get("Date").now(),
    random: () => get("Math").random(),
    setTimer: (fn, ms) => get("setTimeout")(fn, Math.min(Math.max(ms, 0), LONGEST)),
    clearTimer: (timer) => get("clearTimeout")(timer),
    log: (level, ...what) => get("console")[level]("MessageBus:", ...what),
    isHidden: () => get("document")?.visibilityState === "hidden",
  };
}
