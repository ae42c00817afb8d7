// What the two-way part adds to a bus. Each piece has a file of its own; here is only its name.

import { enter } from "./channel.js";
import { watch } from "./presence.js";

/** Gives a bus, the page's own or a further one, the methods of this part. */
export function install(bus) {
  bus.channel = (name, params, listeners) => enter(bus, name, params, listeners);
  bus.presence = (channel, listeners) => watch(bus, channel, listeners);
  return bus;
}
