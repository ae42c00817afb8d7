import assert from "node:assert/strict";
import test from "node:test";
import { World, gap, message, recorder, status } from "./fakes.js";

// A started bus on an open websocket, following the channels given with their positions.
async function connected(positions = { "/chat": -1 }, settings = {}) {
  const world = new World();
  const bus = world.bus(settings);
  const callbacks = {};
  for (const [channel, position] of Object.entries(positions)) bus.subscribe(channel, (callbacks[channel] = recorder()), position);
  bus.start();
  await world.advance(10);
  return { world, bus, callbacks, chat: callbacks["/chat"] };
}

test("a callback gets data, global id, message id and channel", async () => {
  const { world, chat } = await connected();
  world.socket.receive([message("/chat", 1, { text: "ä" })]);
  assert.deepEqual(chat.got, [[{ text: "ä" }, 10, 1, "/chat"]]);
});

test("a message reaches the callbacks of its channel only, in the order of their subscribing", async () => {
  const { world, bus, chat, callbacks } = await connected({ "/chat": -1, "/chat/2": -1 });
  const order = [];
  bus.subscribe("/chat", () => order.push("second"));
  bus.subscribe("/chat", () => order.push("third"));
  world.socket.receive([message("/chat", 1)]);
  assert.deepEqual([chat.got.length, callbacks["/chat/2"].got.length, order], [1, 0, ["second", "third"]]);
});

test("a callback that throws stops neither the others nor the next message", async () => {
  const { world, bus } = await connected({});
  const other = recorder();
  bus.subscribe("/chat", () => { throw new Error("mine"); });
  bus.subscribe("/chat", other);
  await world.advance(10);
  world.socket.receive([message("/chat", 1), message("/chat", 2)]);
  assert.equal(other.got.length, 2);
  assert.equal(world.log[0][0], "error");
  assert.match(String(world.log[0].at(-1)), /mine/);
});

test("an onStateChange or onGap that throws breaks nothing", async () => {
  const broken = () => { throw new Error("mine"); };
  const { world, chat } = await connected({ "/chat": 5 }, { onStateChange: broken, onGap: broken });
  world.socket.receive([gap({ "/chat": { after: 5, before: 8 } }), message("/chat", 8)]);
  assert.deepEqual(chat.data, ["/chat 8"]);
});

test("many subscribes in a row make one connection", async () => {
  const world = new World();
  const bus = world.bus();
  bus.start();
  bus.subscribe("/a", () => {});
  bus.subscribe("/b", () => {}, 4);
  bus.subscribe("/c", () => {}, "@17");
  await world.advance(10);
  assert.equal(world.sockets.length, 1);
  assert.deepEqual(world.socket.query, { "/a": "-1", "/b": "4", "/c": "@17" });
});

test("nothing is asked of the server before start, nor without channels", async () => {
  const world = new World();
  const bus = world.bus();
  bus.subscribe("/a", () => {})();
  bus.start();
  await world.advance(60000);
  assert.equal(world.sockets.length + world.polls.length, 0);
});

test("garbage for a channel, a callback or a position is a TypeError that says what was expected", () => {
  const bus = new World().bus();
  for (const channel of ["chat", "", 7, null]) assert.throws(() => bus.subscribe(channel, () => {}), /TypeError: MessageBus: bad channel/);
  for (const fn of [undefined, "fn", {}]) assert.throws(() => bus.subscribe("/a", fn), /TypeError: MessageBus: bad callback/);
  for (const lastId of ["7", "@", "@x", 1.5, NaN, [], true]) assert.throws(() => bus.subscribe("/a", () => {}, lastId), /TypeError: MessageBus: bad lastId/);
  assert.deepEqual(bus.diagnostics().channels, {});
});

test("null as a position means none, as in the field", () => {
  const bus = new World().bus();
  bus.subscribe("/a", () => {}, null);
  assert.deepEqual(bus.diagnostics().channels, { "/a": -1 });
});

test("unknown settings and transports are refused", () => {
  assert.throws(() => new World().bus({ callbackIntervall: 1 }), /bad callbackIntervall: 1/);
  assert.throws(() => new World().bus({ transports: ["websockets"] }).start(), /bad transports: websockets/);
  assert.throws(() => { new World().bus().transport = "polling"; }, TypeError);
});

test("a second callback on a channel joins where it is, and costs no request", async () => {
  const { world, bus } = await connected({ "/chat": 5 });
  bus.subscribe("/chat", () => {});
  await world.advance(10);
  assert.deepEqual([world.sockets.length, world.socket.sent.length, bus.diagnostics().channels["/chat"]], [1, 0, 5]);
});

test("subscribe returns its own undo, which removes that one subscription once", async () => {
  const { world, bus } = await connected({});
  const same = recorder();
  const undo = bus.subscribe("/chat", same);
  bus.subscribe("/chat", same);
  await world.advance(10);
  assert.deepEqual([undo(), undo()], [true, false]);
  world.socket.receive([message("/chat", 1)]);
  assert.equal(same.got.length, 1);
});

test("unsubscribe takes one callback, a whole channel, or all that share a beginning, and says whether there was one", () => {
  const bus = new World().bus();
  const [one, two] = [() => {}, () => {}];
  for (const channel of ["/a", "/room/1", "/room/2", "/roof"]) for (const fn of [one, two]) bus.subscribe(channel, fn);
  assert.equal(bus.unsubscribe("/a", one), true);
  assert.equal(bus.unsubscribe("/a", one), false);
  assert.equal(bus.unsubscribe("/a"), true);
  assert.equal(bus.unsubscribe("/a"), false);
  assert.equal(bus.unsubscribe("/room/*", one), true);
  assert.equal(bus.unsubscribe("/room/*"), true);
  assert.deepEqual(Object.keys(bus.diagnostics().channels), ["/roof"]);
  assert.equal(bus.unsubscribe("*"), true);
  assert.deepEqual(bus.diagnostics().channels, {});
});

test("a callback that is taken away while a message is delivered does not get it any more", async () => {
  const { world, bus } = await connected({});
  const second = recorder();
  bus.subscribe("/chat", () => bus.unsubscribe("/chat", second));
  bus.subscribe("/chat", second);
  await world.advance(10);
  world.socket.receive([message("/chat", 1)]);
  assert.equal(second.got.length, 0);
});

test("on an open websocket channels come and go by one frame each", async () => {
  const { world, bus } = await connected({ "/chat": -1 });
  bus.subscribe("/a", () => {}, 3);
  bus.subscribe("/b", () => {}, "@9");
  bus.unsubscribe("/chat");
  await world.advance(10);
  assert.deepEqual(world.socket.sent, [{ unsubscribe: ["/chat"] }, { subscribe: { "/a": 3, "/b": "@9" } }]);
  assert.equal(world.sockets.length, 1);
});

test("channels subscribed while the websocket opens follow when it is open", async () => {
  const world = new World();
  const bus = world.bus();
  bus.subscribe("/a", () => {});
  bus.start();
  await world.advance(0);
  bus.subscribe("/b", () => {});
  await world.advance(10);
  assert.deepEqual([world.sockets.length, world.socket.sent], [1, [{ subscribe: { "/b": -1 } }]]);
});

test("leaving the last channel closes the connection", async () => {
  const { world, bus } = await connected();
  bus.unsubscribe("/chat");
  await world.advance(10);
  assert.equal(world.socket.closed, true);
});

test("duplicates are dropped, and positions follow the messages", async () => {
  const { world, bus, chat } = await connected({ "/chat": 5 });
  world.socket.receive([message("/chat", 5), message("/chat", 6), message("/chat", 6), message("/chat", 7)]);
  assert.deepEqual(chat.data, ["/chat 6", "/chat 7"]);
  assert.equal(bus.diagnostics().channels["/chat"], 7);
});

test("positions -1, -k and @g stay until a message or a status gives a number", async () => {
  const { world, bus } = await connected({ "/a": -1, "/b": -3, "/c": "@17" });
  world.socket.receive([message("/b", 4), message("/c", 2), message("/other", 9), status({ "/a": 12, "/other": 9 })]);
  assert.deepEqual(bus.diagnostics().channels, { "/a": 12, "/b": 4, "/c": 2 });
});

test("a status may move a position back, and what follows is delivered", async () => {
  const { world, chat } = await connected({ "/chat": 50 });
  world.socket.receive([status({ "/chat": 3 }), message("/chat", 4)]);
  assert.deepEqual(chat.data, ["/chat 4"]);
});

test("the epoch of a status is sent back with the positions", async () => {
  const { world } = await connected({ "/chat": 2 });
  world.socket.receive([status({ "/chat": 2, __epoch: "e7" })]);
  world.socket.break();
  await world.advance(600);
  assert.deepEqual(world.socket.query, { "/chat": "2", __epoch: "e7" });
});

test("a gap is told before the messages that follow it", async () => {
  const told = [];
  const { world, bus } = await connected({}, { onGap: (...args) => told.push(args) });
  bus.subscribe("/chat", (data) => told.push(data), 5);
  await world.advance(10);
  world.socket.receive([gap({ "/chat": { after: 5, before: 42 }, "/other": { after: 1, before: 3 } }), message("/chat", 42)]);
  assert.deepEqual(told, [["/chat", { after: 5, before: 42 }], "/chat 42"]);
});

test("a gap after null forgets the position, so that the whole backlog is delivered", async () => {
  const { world, bus, chat } = await connected({ "/chat": 50 });
  world.socket.receive([gap({ "/chat": { after: null, before: 1 } }), message("/chat", 1), message("/chat", 2)]);
  assert.deepEqual([chat.data, bus.diagnostics().channels["/chat"]], [["/chat 1", "/chat 2"], 2]);
});

test("a gap with nothing behind it is not heard of again after a reconnect", async () => {
  const { world } = await connected({ "/chat": 5 });
  world.socket.receive([gap({ "/chat": { after: 5, before: 42 } })]);
  world.socket.break();
  await world.advance(600);
  assert.deepEqual(world.socket.query, { "/chat": "41" });
});

test("what arrives while paused is delivered in order at resume", async () => {
  const { world, bus, chat } = await connected();
  bus.pause();
  world.socket.receive([message("/chat", 1)]);
  world.socket.receive([message("/chat", 2), gap({ "/chat": { after: 2, before: 4 } })]);
  assert.deepEqual([chat.got, bus.status()], [[], "paused"]);
  bus.resume();
  assert.deepEqual([chat.data, bus.status()], [["/chat 1", "/chat 2"], "started"]);
});

test("a callback may pause, and the rest of the batch waits", async () => {
  const { world, bus } = await connected({});
  const got = [];
  bus.subscribe("/chat", (data, globalId, id) => { got.push(id); if (id === 2) bus.pause(); });
  await world.advance(10);
  world.socket.receive([1, 2, 3].map((id) => message("/chat", id)));
  assert.deepEqual(got, [1, 2]);
  bus.resume();
  assert.deepEqual(got, [1, 2, 3]);
});

test("a long pause rests the connection instead of filling memory, and resume goes on without loss", async () => {
  const { world, bus, chat } = await connected({ "/chat": 0 });
  bus.pause();
  world.socket.receive(Array.from({ length: 1000 }, (_, index) => message("/chat", index + 1)));
  assert.equal(world.socket.closed, true);
  await world.advance(100000);
  assert.equal(world.sockets.length, 1);
  bus.resume();
  await world.advance(10);
  assert.deepEqual([chat.got.length, world.socket.query], [1000, { "/chat": "1000" }]);
});

test("a callback may stop the bus; the rest is delivered when it starts again", async () => {
  const { world, bus } = await connected({});
  const got = [];
  bus.subscribe("/chat", (data, globalId, id) => { got.push(id); if (id === 1) bus.stop(); });
  await world.advance(10);
  world.socket.receive([message("/chat", 1), message("/chat", 2)]);
  assert.deepEqual(got, [1]);
  bus.start();
  await world.advance(10);
  assert.deepEqual([got, world.socket.query], [[1, 2], { "/chat": "2" }]);
});

test("status and state tell what goes on, and transport what is in use", async () => {
  const world = new World();
  const bus = world.bus();
  assert.deepEqual([bus.status(), bus.state, bus.transport], ["stopped", "stopped", null]);
  bus.subscribe("/chat", () => {});
  bus.start();
  assert.deepEqual([bus.status(), bus.state], ["started", "connecting"]);
  await world.advance(10);
  assert.deepEqual([bus.status(), bus.state, bus.transport], ["started", "connected", "websocket"]);
  bus.stop();
  assert.deepEqual([bus.status(), bus.state, bus.transport], ["stopped", "stopped", null]);
  assert.deepEqual(world.stateNames, ["connecting", "connected", "stopped"]);
});

test("stop leaves no timer, listener or socket, and start works again", async () => {
  for (const name of ["websocket", "eventsource", "streaming", "long-polling", "polling"]) {
    const { world, bus } = await connected({ "/chat": 3 }, { transports: [name] });
    await world.advance(1000);
    assert.equal(bus.state, "connected", name);
    bus.subscribe("/more", () => {});
    bus.stop();
    await world.advance(0);
    assert.deepEqual([world.timers.size, world.window.listening], [0, 0], name);
    assert.ok([...world.sockets, ...world.sources].every(({ closed }) => closed), name);
    assert.ok(!world.poll || world.poll.plain || world.poll.aborted, name);
    bus.start();
    await world.advance(1000);
    assert.equal(bus.state, "connected", name);
    bus.stop();
  }
});

test("two buses are independent", async () => {
  const [first, second] = [new World().bus(), new World().bus()];
  first.subscribe("/a", () => {});
  assert.match(first.clientId, /^\d{20,40}$/);
  assert.notEqual(first.clientId, second.clientId);
  assert.deepEqual(second.diagnostics().channels, {});
});
