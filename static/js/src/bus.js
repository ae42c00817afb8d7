// What pages call: settings as properties, and methods.

import { makeClient } from "./client.js";
import { makeEnvironment } from "./environment.js";
import { configure, defineSettings } from "./settings.js";

const SLOTS = { state: "onStateChange", gap: "onGap" };

/** A further bus, independent of the page's own. */
export function createMessageBus({ environment: given, ...settings } = {}) {
  const environment = makeEnvironment(given);
  const listeners = { state: [], gap: [], refused: [] };

  /** Tells the slot and every listener; whether there was one. */
  function emit(event, ...args) {
    const all = [bus[SLOTS[event]], ...listeners[event]].filter(Boolean);
    for (const fn of all) client.guard(SLOTS[event] || event, fn, ...args);
    return !!all[0];
  }

  const bus = {};
  defineSettings(bus, (name) => client && ["grants", "headers"].includes(name) && client.credentialsChanged());
  let client;
  const bytes = environment.get("crypto").getRandomValues(new Uint8Array(16));
  bus.clientId = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
  client = makeClient(bus, environment, emit);
  const { channels, delivery, stop, retry, resume, publish } = client;
  const getter = (get) => ({ get, enumerable: true });
  Object.defineProperties(bus, { state: getter(() => client.state), transport: getter(() => client.transport) });
  Object.assign(bus, {
    createMessageBus, stop, retry, resume, publish,
    version: VERSION,

    start(options) {
      configure(bus, options);
      client.start();
    },
    pause() {
      delivery.paused = true;
    },
    status: () => (delivery.paused ? "paused" : client.running ? "started" : "stopped"),

    subscribe: channels.add,
    unsubscribe: channels.removeMatching,

    on(event, fn) {
      if (!listeners[event]?.concat || typeof fn !== "function")
        throw new TypeError(`expected one of ${Object.keys(listeners)} and a function, got ${event}, ${fn}`);
      const listener = (...args) => fn(...args); // the same function may listen twice
      listeners[event].push(listener);
      return () => {
        listeners[event] = listeners[event].filter((one) => one !== listener);
      };
    },

    continueFrom(positions, epoch) {
      Object.assign(channels.pagePositions, positions);
      if (epoch) channels.epoch = epoch;
    },

    diagnostics: () => ({ version: VERSION, status: bus.status(), clientId: bus.clientId, ...client.diagnostics() }),
  });
  configure(bus, settings);
  return bus;
}
