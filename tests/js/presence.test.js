// Who is there: members, events and the count, as the server tells them.
import assert from "node:assert/strict";
import test from "node:test";
import { install } from "../../static/js/src/two-way/install.js";
import { World, message } from "./fakes.js";

const ROOM = "/rooms/7", WATCH = "/__presence/rooms/7";
const [ANN, BOB] = [{ id: 1, info: { name: "Ann" } }, { id: "1", info: { name: "Bob" } }];
const FORBIDDEN = { code: "forbidden", message: "not you", retry: false };
const refusal = (data) => ({ global_id: -1, message_id: -1, channel: "/__refused", data });

async function watching(...listeners) {
  const world = new World(), bus = install(world.bus()), events = [];
  const named = (number) => Object.fromEntries(
    ["onJoin", "onLeave"].map((name) => [name, ({ id }) => events.push(`${name} ${JSON.stringify(id)} ${number}`)]));
  const rooms = (listeners.length ? listeners : [{}]).map((more, number) => bus.presence(ROOM, { ...named(number), ...more }));
  bus.start();
  await world.advance(300);
  const say = (version, data) => world.socket.receive([message(WATCH, version, data)]);
  return { world, bus, rooms, room: rooms[0], events, say };
}

test("members are those of the last word, and events are of those who come and go after the first", async () => {
  const counts = [];
  const { room, events, say, world } = await watching({ onChange: ({ count }) => counts.push(count) });
  assert.deepEqual([world.socket.query, room.members, room.count, room.channel], [{ [WATCH]: "0" }, null, null, ROOM]);
  say(100, { members: [ANN], count: 1 });
  assert.deepEqual([room.members, room.count, events], [[ANN], 1, []]);
  say(105, { joined: [BOB], left: [], count: 2 });
  say(110, { joined: [{ id: 1, info: "other" }], left: ["1"], count: 1 });
  say(108, { joined: [BOB], left: [], count: 2 }); // late
  assert.deepEqual(room.members, [{ id: 1, info: "other" }]);
  say(120, { members: [BOB], count: 1 }); // from another server, after a while
  assert.deepEqual(events, ['onJoin "1" 0', 'onLeave "1" 0', "onLeave 1 0", 'onJoin "1" 0']);
  assert.deepEqual(counts, [1, 2, 1, 1]);
});

test("of a large room only the count is known, and nobody comes or goes with that", async () => {
  const { room, events, say } = await watching();
  say(1, { members: [ANN], count: 1 });
  say(2, { count: 501 });
  assert.deepEqual([room.members, room.count], [null, 501]);
  say(3, { joined: [BOB], left: [], count: 502 });
  assert.deepEqual([room.members, room.count], [null, 502]);
  say(4, { members: [ANN, BOB], count: 2 });
  assert.deepEqual([room.members, room.count, events], [[ANN, BOB], 2, []]);
});

test("who begins to watch later in the same page is told all, and the first nothing twice", async () => {
  const { world, bus, say, events } = await watching();
  say(100, { members: [ANN], count: 1 });
  const second = bus.presence(ROOM);
  await world.advance(300);
  assert.deepEqual(world.socket.sent.at(-1), { subscribe: { [WATCH]: 0 } });
  say(100, { members: [ANN], count: 1 });
  say(101, { joined: [BOB], left: [], count: 2 });
  assert.deepEqual([second.members, events], [[ANN, BOB], ['onJoin "1" 0']]);
});

test("a connection that is new goes on from the version that is known", async () => {
  const { world, say, room } = await watching();
  say(100, { members: [ANN], count: 1 });
  world.socket.break();
  await world.advance(5000);
  assert.equal(world.socket.query[WATCH], "100");
  assert.deepEqual(room.members, [ANN]);
});

test("calling the room ends it", async () => {
  const { bus, room } = await watching();
  assert.equal(room.unsubscribe(), undefined);
  assert.deepEqual([bus.diagnostics().channels, room()], [{}, false]);
});

test("a refusal is told with the reason, and rejects ready", async () => {
  const refused = [];
  const { world, room } = await watching({ onRefused: ({ code, message }) => refused.push([code, message]) });
  await room.ready.then((ready) => assert.equal(ready, room));
  world.socket.receive([refusal({ [WATCH]: FORBIDDEN })]);
  assert.deepEqual(refused, [["forbidden", "not you"]]);
});

test("a listener that throws keeps the others from nothing", async () => {
  const { room, events, say, world } = await watching({ onJoin() { throw new Error("mine"); } }, {});
  say(1, { members: [], count: 0 });
  const { error } = console, logged = [];
  console.error = (...args) => logged.push(args);
  try {
    say(2, { joined: [ANN, BOB], left: [], count: 2 });
  } finally {
    console.error = error;
  }
  assert.deepEqual([room.count, events, logged.length], [2, ["onJoin 1 1", 'onJoin "1" 1'], 2]);
  void world;
});

test("a wrong channel or listener is a TypeError that names it", () => {
  const bus = install(new World().bus());
  for (const channel of ["rooms", "", null, 7, "/__presence/rooms"]) assert.throws(() => bus.presence(channel), /TypeError: MessageBus: bad channel/);
  assert.throws(() => bus.presence(ROOM, { onjoin() {} }), /bad onjoin/);
  assert.throws(() => bus.presence(ROOM, { onJoin: 1 }), /bad onJoin: 1/);
  assert.deepEqual(bus.diagnostics().channels, {});
});
