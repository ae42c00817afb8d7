// What pages call: settings as properties, and methods.

import { positionsOf } from "./channels.js";
import { Client } from "./client.js";
import { makeEnvironment } from "./environment.js";
import { SETTINGS, checkTransports, configure } from "./settings.js";

const hex = (bytes) => Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");

/** A further bus, independent of the page's own. */
export function createMessageBus({ environment: given, ...settings } = {}) {
  const environment = makeEnvironment(given);
  const bus = {
    ...SETTINGS,
    transports: [...SETTINGS.transports],
    headers: {},
    grants: [],
    clientId: hex(environment.get("crypto").getRandomValues(new Uint8Array(16))),
    createMessageBus,
    get state() { return client.plan.state; },
    get transport() { return client.plan.inUse; },

    start(options) {
      configure(bus, options);
      checkTransports(bus.transports);
      client.start();
    },
    stop: () => client.stop(),
    pause() { client.delivery.paused = true; },
    resume: () => client.resume(),
    status: () => (client.delivery.paused ? "paused" : client.running ? "started" : "stopped"),

    subscribe: (channel, fn, lastId) => client.channels.add(channel, fn, lastId),
    unsubscribe: (channel, fn) => client.channels.removeMatching(channel, fn),
    publish: (channel, data) => client.publish(channel, data),

    continueFrom(positions, epoch) {
      Object.assign(client.channels.pagePositions, positions);
      if (epoch) client.channels.epoch = epoch;
    },

    diagnostics: () => ({
      status: bus.status(), state: bus.state, transport: bus.transport, trying: client.plan.current,
      clientId: bus.clientId, epoch: client.channels.epoch, failures: client.plan.failures,
      queued: client.delivery.length, channels: positionsOf(client.channels.followed),
    }),
  };
  const client = new Client(bus, environment);
  configure(bus, settings);
  return bus;
}
