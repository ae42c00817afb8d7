// Channel classes: entered, called, left, and entered again where the server no longer knows.
import assert from "node:assert/strict";
import test from "node:test";
import { install } from "../../static/js/src/two-way/install.js";

const PRIVATE = "/messagebus/private/1";
const entered = (id, more = {}) => ({ id, private: PRIVATE, streams: { "/rooms/7": 5, [PRIVATE]: 0 }, grants: ["g1", "p1"], ...more });
const failure = (code) => Object.assign(new Error(code), { code });
const settle = () => new Promise((resolve) => setTimeout(resolve, 5));

/** A bus that answers calls as told, and writes down what is asked of it. */
function makeBus(...answers) {
  const calls = [], followed = new Map(), listeners = [];
  const bus = install({
    grants: [],
    call(verb, value) {
      calls.push([verb, value]);
      const answer = answers.shift();
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer ?? {});
    },
    subscribe(channel, take, { lastId, onRefused }) {
      const handle = () => followed.delete(channel);
      followed.set(channel, Object.assign(handle, { take, position: lastId, onRefused }));
      return handle;
    },
    on(event, fn) {
      listeners.push(fn);
      return () => listeners.splice(listeners.indexOf(fn), 1);
    },
  });
  return { bus, calls, answers, followed, listeners, state: (...told) => listeners.forEach((fn) => fn(...told)) };
}

function makeRoom(world, params = { id: 7 }) {
  const events = [];
  const note = (kind) => (...args) => events.push([kind, ...args]);
  const listeners = Object.fromEntries(["connected", "disconnected", "rejected", "received"].map((kind) => [kind, note(kind)]));
  return { events, room: world.bus.channel("RoomChannel", params, listeners) };
}

test("it enters, follows the streams from where they stand, and hears both streams and transmissions", async () => {
  const world = makeBus(entered("w.1")), { events, room } = makeRoom(world);
  await room.ready;
  const [verb, { key, ...value }] = world.calls[0];
  assert.deepEqual([verb, value], ["enter", { channel: "RoomChannel", params: { id: 7 } }]);
  assert.match(key, /^[0-9-]+$/);
  assert.deepEqual([...world.followed].map(([channel, { position }]) => [channel, position]), [["/rooms/7", 5], [PRIVATE, 0]]);
  assert.deepEqual(await world.bus.grants(), ["g1", "p1"]);
  world.followed.get("/rooms/7").take({ text: "hi" });
  world.followed.get(PRIVATE).take({ message: null });
  assert.deepEqual(events, [["connected", { reconnected: false }], ["received", { text: "hi" }], ["received", null]]);
});

test("it shows the page's own grants as it enters, whether they are a list or a function", async () => {
  for (const grants of [["mine"], async () => "mine"]) {
    const world = makeBus(entered("w.1"), entered("w.2"));
    world.bus.grants = grants;
    await makeRoom(world).room.ready;
    await makeRoom(world).room.ready;
    assert.deepEqual(world.calls.map(([, value]) => value.grants), [["mine"], ["mine"]]);
    assert.deepEqual((await world.bus.grants())[0], "mine");
  }
});

test("an action's result is the promise's, and an error has its code", async () => {
  const world = makeBus(entered("w.1"), { result: 42 }, failure("unknown_action")), { room } = makeRoom(world);
  assert.equal(await room.perform("speak", { text: "hi" }), 42);
  const [verb, { key, ...value }] = world.calls[1];
  assert.deepEqual([verb, value], ["perform", { id: "w.1", action: "speak", data: { text: "hi" } }]);
  await assert.rejects(room.perform("nothing"), { code: "unknown_action" });
});

test("streams that the class changes later are followed and left", async () => {
  const world = makeBus(entered("w.1")), { room } = makeRoom(world);
  await room.ready;
  world.followed.get(PRIVATE).take({ stop: ["/rooms/7"] });
  world.followed.get(PRIVATE).take({ streams: { "/rooms/8": 0 }, grants: ["g2"] });
  assert.deepEqual([...world.followed.keys()], [PRIVATE, "/rooms/8"]);
  assert.deepEqual(await world.bus.grants(), ["p1", "g2"]);
});

test("a rejected one is told once, and calls nothing any more", async () => {
  const world = makeBus(failure("rejected")), { events, room } = makeRoom(world);
  await assert.rejects(room.ready, { code: "rejected" });
  await assert.rejects(room.perform("speak"), { code: "rejected" });
  assert.deepEqual(events.map(([kind, { code }]) => [kind, code]), [["rejected", "rejected"]]);
  assert.deepEqual([world.calls.length, world.listeners.length], [1, 0]);
});

test("where the first connection fails it asks as well, and tells only of a server that no longer knows it", async () => {
  const world = makeBus(entered("w.1"), entered("w.1"), failure("gone"), entered("v.1")), { events, room } = makeRoom(world);
  await room.ready;
  for (const [call, told] of [[1, 1], [2, 3]]) {
    world.state("connecting", { message: "no connection" });
    world.state("connected", {});
    await settle();
    assert.deepEqual(world.calls[call], ["enter", { id: "w.1" }]);
    assert.equal(events.length, told);
  }
  assert.deepEqual(events.slice(1), [["disconnected"], ["connected", { reconnected: true }]]);
  world.state("connected", {});
  await settle();
  assert.equal(world.calls.length, 4);
});

test("after a reconnect it asks whether the server still knows it, and enters again where not", async () => {
  const world = makeBus(entered("w.1"), entered("w.1"), failure("gone"), entered("v.1", { streams: { "/rooms/7": 9, "/p2": 0 }, private: "/p2" }));
  const { events, room } = makeRoom(world);
  await room.ready;
  world.followed.get("/rooms/7").position = 8;
  for (let times = 0; times < 2; times++) {
    world.state("reconnecting");
    world.state("connected");
    await settle();
  }
  assert.deepEqual(world.calls.map(([verb, { id }]) => [verb, id]), [["enter", undefined], ["enter", "w.1"], ["enter", "w.1"], ["enter", undefined]]);
  assert.deepEqual(events.map(([kind]) => kind), ["connected", "disconnected", "connected", "disconnected", "connected"]);
  assert.deepEqual([...world.followed].map(([channel, { position }]) => [channel, position]), [["/rooms/7", 8], ["/p2", 0]]);
});

test("a page that was stopped, refused or at rest asks as well: the server may have forgotten it", async () => {
  const world = makeBus(entered("w.1"), entered("w.1"), failure("gone"), entered("w.2"), entered("w.2")), { events, room } = makeRoom(world);
  await room.ready;
  for (const state of ["stopped", "refused", "idle"]) {
    world.state(state);
    world.state("connecting");
    world.state("connected");
    await settle();
  }
  assert.deepEqual(world.calls.map(([, { id }]) => id), [undefined, "w.1", "w.1", undefined, "w.2"]);
  assert.equal(events.filter(([kind]) => kind === "disconnected").length, 3);
});

test("an action that meets a server which has forgotten it enters again, and runs once", async () => {
  const world = makeBus(entered("w.1"), failure("gone"), entered("v.1"), { result: 1 }), { events, room } = makeRoom(world);
  assert.equal(await room.perform("speak"), 1);
  assert.deepEqual(world.calls.map(([verb, { id }]) => [verb, id]), [["enter", undefined], ["perform", "w.1"], ["enter", undefined], ["perform", "v.1"]]);
  assert.equal(events.length, 1);
});

test("a stream whose grant is over is entered for again, and a second refusal is the end", async () => {
  const world = makeBus(entered("w.1"), {}, entered("w.2", { grants: ["g2", "p2"] })), { events, room } = makeRoom(world);
  await room.ready;
  world.followed.get("/rooms/7").position = 6;
  world.followed.get("/rooms/7").onRefused({ code: "forbidden" });
  await settle();
  assert.deepEqual([world.followed.get("/rooms/7").position, (await world.bus.grants())[0]], [6, "g2"]);
  world.followed.get("/rooms/7").onRefused({ code: "forbidden" });
  assert.deepEqual([events.map(([kind]) => kind), world.followed.size], [["connected", "rejected"], 0]);
});

test("a refusal of a stream that time mends is left to the bus", async () => {
  const world = makeBus(entered("w.1")), { events, room } = makeRoom(world);
  await room.ready;
  world.followed.get("/rooms/7").onRefused({ code: "unavailable", retry: true });
  await settle();
  assert.deepEqual([events.map(([kind]) => kind), world.followed.size, world.calls.length], [["connected"], 2, 1]);
});

test("leaving ends the streams and tells the server", async () => {
  const world = makeBus(entered("w.1")), { room } = makeRoom(world);
  await room.ready;
  room.leave();
  room.leave();
  assert.deepEqual([world.followed.size, world.listeners.length, world.calls.slice(1)], [0, 0, [["leave", { id: "w.1" }]]]);
});

test("the grants of what has been left are shown no more, and those of all that is followed are", async () => {
  const numbers = Array.from({ length: 150 }, (_, number) => number);
  const world = makeBus(...numbers.map((n) => ({ id: `w.${n}`, private: `/p/${n}`, streams: { [`/p/${n}`]: 0 }, grants: [`g${n}`] })));
  const rooms = numbers.map(() => makeRoom(world).room);
  for (const room of rooms) await room.ready;
  assert.equal((await world.bus.grants()).length, 150);
  for (const room of rooms.slice(1)) room.leave();
  assert.deepEqual(await world.bus.grants(), ["g0"]);
});

test("the page's own grants stay, also those that it sets later", async () => {
  const world = makeBus(entered("w.1")), { room } = makeRoom(world);
  await room.ready;
  world.bus.grants = () => ["mine"];
  world.followed.get(PRIVATE).take({ streams: { "/rooms/7": 8 }, grants: ["g2"] });
  assert.deepEqual(await world.bus.grants(), ["mine", "g2", "p1"]);
});

test("what does not fit is named", () => {
  const { bus } = makeBus();
  assert.throws(() => bus.channel(""), /bad channel/);
  assert.throws(() => bus.channel("RoomChannel", []), /bad params/);
  assert.throws(() => bus.channel("RoomChannel", {}, { recieved() {} }), /bad recieved/);
});
