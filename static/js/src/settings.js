// Every setting with its default, and what it may be. What each means is said once, in messagebus.d.ts.

import { check, isFunction } from "./check.js";
import { LONGEST } from "./environment.js";

const SETTINGS = {
  transports: ["websocket", "eventsource", "streaming", "long-polling", "polling"],
  baseUrl: "/", headers: {}, grants: [], clientId: "", withCredentials: true, onStateChange: null, onGap: null,
  callbackInterval: 15000, backgroundCallbackInterval: 60000,
  minPollInterval: 100, maxPollInterval: 180000, minHiddenPollInterval: 1500,
  enableLongPolling: true, enableChunkedEncoding: true, alwaysLongPoll: false, shouldLongPollCallback: null,
  firstChunkTimeout: 3000, retryChunkedAfterRequests: 30, heartbeatTimeout: 40000, debug: false,
};

export const defaults = () => JSON.parse(JSON.stringify(SETTINGS));
export const isSetting = (name) => Object.hasOwn(SETTINGS, name);

/** Whether a value is of the kind of the default. For yes and no any value will do, as with the original. */
function fits(normal, value) {
  const kind = typeof normal;
  if (kind === "boolean") return true;
  // Callbacks; headers and grants may be functions as well.
  if (isFunction(value)) return kind === "object" && !normal?.[0];
  if (normal === null) return value == null;
  if (Array.isArray(normal)) return value?.every?.((one) => (normal[0] ? normal.includes(one) : typeof one === "string"));
  return typeof value === kind && value !== null && (kind !== "number" || (value >= 0 && value <= LONGEST));
}

/** Sets what is given: all of it, or nothing where one is wrong. Throws a TypeError. */
export function configure(bus, given = {}) {
  for (const name in given) check(isSetting(name) && fits(SETTINGS[name], given[name]), name, given[name]);
  Object.assign(bus, given);
}
