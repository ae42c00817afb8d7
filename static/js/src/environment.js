// The globals of the browser, the worker or Node that the client uses. Tests give their own.

/** `given`: what stands in for globals, by name. A name given as undefined is a global that is missing. */
export function makeEnvironment(given = {}) {
  const get = (name) => (name in given ? given[name] : globalThis[name]);
  return {
    get,
    now: () => get("Date").now(),
    random: () => get("Math").random(),
    setTimer: (fn, ms) => get("setTimeout")(fn, ms),
    clearTimer: (timer) => get("clearTimeout")(timer),
    log: (level, ...what) => get("console")[level]("MessageBus:", ...what),
    isHidden: () => get("document")?.visibilityState === "hidden",
  };
}
