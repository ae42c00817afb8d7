// What pages call: settings as properties, and methods.

import { check, isFunction } from "./check.js";
import { makeClient } from "./client.js";
import { configure, defaults, isSetting } from "./settings.js";

const randomId = () => crypto.getRandomValues(new Uint32Array(4)).join("");

/** A further bus, independent of the page's own. */
export function createMessageBus(settings) {
  let calls;
  const listeners = {
    state: [(...args) => bus.onStateChange?.(...args)],
    gap: [(...args) => bus.onGap?.(...args)],
    refused: [],
  };

  /** Tells every listener; how many there are. */
  function emit(event, ...args) {
    const all = listeners[event];
    for (const fn of all) client.guard(`a callback of ${event}`, fn, ...args);
    return all.length;
  }

  const bus = {
    ...defaults(),
    createMessageBus,
    version: VERSION,
    get state() { return client.state; },
    get transport() { return client.transport; },

    start(options) {
      configure(bus, options);
      client.start();
    },
    pause() {
      delivery.paused = true;
    },
    status: () => (delivery.paused ? "paused" : client.running ? "started" : "stopped"),

    on(event, fn) {
      check(listeners[event]?.concat, "event", event);
      check(isFunction(fn), "callback", fn);
      const listener = (...args) => fn(...args); // the same function may listen twice
      listeners[event] = [...listeners[event], listener];
      return () => {
        listeners[event] = listeners[event].filter((one) => one !== listener);
      };
    },

    call(...args) {
      // One promise for all: imports of one module need not end in the order in which they began.
      calls ||= import("./calls.js").then(({ makeCalls }) => makeCalls(bus, () => client.link));
      calls.catch(() => (calls = 0)); // the next call tries again
      return calls.then((send) => send(...args));
    },
    publish: (channel, data, options) => bus.call("publish", { channel, data }, options),

    continueFrom(positions, epoch) {
      Object.assign(channels.pagePositions, positions);
      channels.epoch = epoch || channels.epoch;
    },
  };
  const client = makeClient(bus, emit);
  const { channels, delivery, stop, retry, resume, diagnostics } = client;
  Object.assign(bus, { stop, retry, resume, diagnostics, subscribe: channels.add, unsubscribe: channels.removeMatching });
  bus.clientId = randomId();
  configure(bus, settings);
  return new Proxy(bus, {
    set(target, name, value) {
      if (isSetting(name)) configure(bus, { [name]: value });
      else return Reflect.set(bus, name, value);
      if (["grants", "headers"].includes(name)) client.credentialsChanged();
      return true;
    },
  });
}
