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

  const bus = {
    createMessageBus,
    version: VERSION,
    get state() { return client.state; },
    get transport() { return client.transport; },

    start(options) {
      configure(bus, options);
      client.start();
    },
    stop: () => client.stop(),
    retry: () => client.retry(),
    pause() { client.delivery.paused = true; },
    resume: () => client.resume(),
    status: () => (client.delivery.paused ? "paused" : client.running ? "started" : "stopped"),

    subscribe: (channel, fn, options) => client.channels.add(channel, fn, options),
    unsubscribe: (channel, fn) => client.channels.removeMatching(channel, fn),
    publish: (channel, data, options) => client.publish(channel, data, options),

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
      Object.assign(client.channels.pagePositions, positions);
      if (epoch) client.channels.epoch = epoch;
    },

    diagnostics: () => ({ version: VERSION, status: bus.status(), clientId: bus.clientId, ...client.diagnostics() }),
  };

  defineSettings(bus, (name) => client && ["grants", "headers"].includes(name) && client.retry());
  let client;
  const bytes = environment.get("crypto").getRandomValues(new Uint8Array(16));
  bus.clientId = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
  client = makeClient(bus, environment, emit);
  configure(bus, settings);
  return bus;
}
