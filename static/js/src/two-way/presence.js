// Who is there: follows the presence of a channel, and keeps its members.

import { check } from "../check.js";

const EVENTS = ["onJoin", "onLeave", "onChange", "onRefused"];

/** `bus`: whose connection it uses. Returns the room, which is also the function that ends it. */
export function watch(bus, channel, listeners = {}) {
  check(typeof channel === "string" && /^\/(?!__)/.test(channel), "channel", channel);
  for (const name in listeners)
    check(EVENTS.includes(name) && typeof listeners[name] === "function", name, listeners[name]);
  let members = null; // by id, as JSON: 7 is not "7"; null where they are not known one by one
  let count = null;

  const tell = (name, value) => {
    try {
      listeners[name]?.(value);
    } catch (error) {
      console.error(`MessageBus: ${name} of ${channel} threw`, error); // and the others get theirs
    }
  };

  function take(data) {
    const before = members, key = ({ id }) => JSON.stringify(id);
    if (data.members) members = new Map(data.members.map((member) => [key(member), member]));
    else if (!data.joined) members = null; // a large room: only how many there are
    else if (members) {
      members = new Map(members);
      for (const id of data.left) members.delete(JSON.stringify(id));
      for (const member of data.joined) members.set(key(member), member);
    }
    ({ count } = data);
    // Not of those who were there when one came.
    if (before && members) {
      for (const [id, member] of before) if (!members.has(id)) tell("onLeave", member);
      for (const [id, member] of members) if (!before.has(id)) tell("onJoin", member);
    }
    tell("onChange", room);
  }

  // From version 0: whoever begins to watch is told all, also where somebody else in the page does so already.
  const subscription = bus.subscribe(`/__presence${channel}`, take, { lastId: 0, onRefused: listeners.onRefused });
  const room = () => subscription();
  return Object.defineProperties(room, {
    channel: { value: channel },
    members: { get: () => members && [...members.values()] },
    count: { get: () => count },
    ready: { get: () => subscription.ready.then(() => room) },
    unsubscribe: { value: () => void room() },
  });
}
