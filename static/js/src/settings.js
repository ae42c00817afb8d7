// Every setting with its default, and what it may be. What each means is said once, in messagebus.d.ts.

export const SETTINGS = {
  transports: ["websocket", "eventsource", "streaming", "long-polling", "polling"],
  baseUrl: "/", headers: {}, grants: [], clientId: "", withCredentials: true, onStateChange: null, onGap: null,
  callbackInterval: 15000, backgroundCallbackInterval: 60000,
  minPollInterval: 100, maxPollInterval: 180000, minHiddenPollInterval: 1500,
  enableLongPolling: true, enableChunkedEncoding: true, alwaysLongPoll: false, shouldLongPollCallback: null,
  firstChunkTimeout: 3000, retryChunkedAfterRequests: 30, heartbeatTimeout: 40000, debug: false,
};
const LONGEST = 2147483647; // ms; browsers fire longer timers at once

/** Whether a value is of the kind of the default. For yes and no any value will do, as with the original. */
function fits(normal, value) {
  const type = typeof value, kind = typeof normal;
  if (kind === "boolean") return true;
  // Callbacks; headers and grants may be functions as well.
  if (type === "function") return kind === "object" && !normal?.[0];
  if (Array.isArray(normal))
    return Array.isArray(value) && value.every((one) => (normal[0] ? normal.includes(one) : typeof one === "string"));
  if (kind === "number") return type === kind && value >= 0 && value <= LONGEST;
  return normal === null ? value == null : type === kind && value !== null;
}

function check(name, value) {
  if (!Object.hasOwn(SETTINGS, name)) throw new TypeError(`MessageBus has no setting ${name}`);
  const normal = SETTINGS[name], kind = Array.isArray(normal) ? `some of ${normal}` : typeof (normal ?? check);
  if (!fits(normal, value)) throw new TypeError(`MessageBus.${name}: expected ${kind}, got ${value}`);
}

/** Makes every setting a property of `bus` that takes only what fits. `changed(name)` is called after one was set. */
export function defineSettings(bus, changed) {
  for (const [name, normal] of Object.entries(SETTINGS)) {
    let value = Array.isArray(normal) ? [...normal] : name === "headers" ? {} : normal;
    Object.defineProperty(bus, name, {
      enumerable: true,
      get: () => value,
      set(given) {
        check(name, given);
        value = given;
        changed(name);
      },
    });
  }
}

/** Sets what is given: all of it, or nothing where one is wrong. Throws a TypeError. */
export function configure(bus, given = {}) {
  for (const one of Object.entries(given)) check(...one);
  Object.assign(bus, given);
}
