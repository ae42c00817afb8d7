// Every setting with its default. What each means is said once, in messagebus.d.ts.

export const SETTINGS = {
  transports: ["websocket", "eventsource", "streaming", "long-polling", "polling"],
  baseUrl: "/", headers: {}, grants: [], clientId: "", onStateChange: null, onGap: null,
  callbackInterval: 15000, backgroundCallbackInterval: 60000,
  minPollInterval: 100, maxPollInterval: 180000, minHiddenPollInterval: 1500,
  enableLongPolling: true, enableChunkedEncoding: true, alwaysLongPoll: false, shouldLongPollCallback: null,
  firstChunkTimeout: 3000, retryChunkedAfterRequests: 30, heartbeatTimeout: 65000,
};

/** Sets the properties of `bus` that are given. Throws a TypeError for a name that is no setting. */
export function configure(bus, given = {}) {
  for (const [name, value] of Object.entries(given)) {
    if (!(name in SETTINGS)) throw new TypeError(`MessageBus has no setting ${name}`);
    bus[name] = value;
  }
}

/** Throws a TypeError for a transport that does not exist. */
export function checkTransports(transports) {
  if (!transports.every((name) => SETTINGS.transports.includes(name)))
    throw new TypeError(`expected some of ${SETTINGS.transports}`);
}
