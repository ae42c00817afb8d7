// Whether a connection is alive, what a better one costs, and that the client always goes on.
import assert from "node:assert/strict";
import test from "node:test";
import { World, message, recorder, status } from "./fakes.js";

const MINUTE = 60_000;

async function using(transports, { behave = {}, settings = {}, ms = 1000, world = new World(), channel = "/chat" } = {}) {
  Object.assign(world.behave, behave);
  const bus = world.bus({ transports: [transports].flat(), ...settings });
  const chat = recorder();
  bus.subscribe(channel, chat, 5);
  bus.start();
  await world.advance(ms);
  return { world, bus, chat };
}

const lines = (world) => world.sockets.length + world.sources.length + world.polls.length;

// ---- alive ----

test("a page that is shown asks its websocket, and stays with it where it answers", async () => {
  const { world } = await using("websocket");
  world.show("hidden");
  await world.advance(20_000);
  world.show("visible");
  assert.deepEqual(world.socket.frames.at(-1), { ping: 1 });
  await world.advance(10_000);
  assert.equal(world.sockets.length, 1);
});

test("a websocket that does not answer within three seconds is replaced", async () => {
  const { world, bus } = await using("websocket");
  world.answerPings = false;
  world.show("hidden");
  world.show("visible");
  await world.advance(2900);
  assert.equal(world.sockets.length, 1);
  await world.advance(200);
  assert.deepEqual([world.sockets.length, world.sockets[0].closed, bus.state], [2, true, "connected"]);
});

test("a page that stood still for a moment, as for a dialog or a debugger, asks and does not reconnect", async () => {
  const { world } = await using("websocket");
  await world.sleep(15_000);
  await world.advance(5000);
  assert.equal(world.sockets.length, 1);
});

test("what cannot be asked is replaced after a sleep, and left alone where it was heard a moment ago", async () => {
  for (const transport of ["eventsource", "streaming"]) {
    const { world } = await using(transport);
    world.show("hidden");
    world.show("visible");
    await world.advance(100);
    assert.equal(lines(world), 1, transport);
    await world.advance(11_000); // until no timer can be late for having been hidden
    await world.sleep(15_000);
    await world.advance(100);
    assert.equal(lines(world), 2, transport);
  }
});

test("a sleep is noticed where the clock of durations stands still meanwhile", async () => {
  const { world, bus } = await using("websocket");
  await world.sleep(20 * MINUTE, { stands: true });
  await world.advance(10);
  assert.deepEqual([world.sockets.length, bus.state], [2, "connected"]);
});

test("a calendar that is set back hides no silence, and prolongs no wait", async () => {
  for (const transport of ["websocket", "eventsource"]) {
    const { world } = await using(transport);
    await world.advance(10_000);
    world.calendar -= 60 * MINUTE;
    world.beats = false;
    await world.advance(50_000);
    assert.equal(lines(world), 2, transport);
  }
  const world = new World();
  world.answers.push({ status: 503, headers: { "Retry-After": "2" } });
  await using("polling", { world, ms: 100 });
  world.calendar -= 60 * MINUTE;
  await world.advance(2500);
  assert.equal(world.polls.length, 2);
});

test("a calendar that is set on costs one reconnect at most", async () => {
  const { world, bus } = await using("websocket");
  world.calendar += 24 * 60 * MINUTE;
  await world.advance(10 * MINUTE);
  assert.ok(world.sockets.length <= 2);
  assert.equal(bus.state, "connected");
});

test("silence ends a connection after 40 seconds, and bytes count as life", async () => {
  const { world } = await using("streaming");
  world.beats = false;
  const text = JSON.stringify([message("/chat", 6, "x".repeat(100))]) + "\r\n|\r\n";
  for (let at = 0; at < 100; at++) {
    world.poll.write(text[at]);
    await world.advance(5000);
  }
  assert.equal(world.polls.length, 1);
  await world.advance(46_000);
  assert.equal(world.polls.length, 2);
});

test("an answer over a slow line is not cut off while it comes", async () => {
  for (const transport of ["polling", "long-polling"]) {
    const { world, chat } = await using(transport, { behave: { polling: "silent", "long-polling": "silent" }, ms: 10 });
    const text = JSON.stringify([message("/chat", 6)]);
    for (const letter of text) {
      world.poll.write(letter);
      await world.advance(3000);
    }
    world.poll.end();
    await world.advance(10);
    assert.deepEqual([chat.data, world.polls.length], [["/chat 6"], 1], transport);
  }
});

// ---- slow, busy, or blocked ----

test("on a line with a round trip of two seconds a websocket is reached, and stays", async () => {
  const world = new World();
  const { fetch, WebSocket } = world;
  world.fetch = (...args) => new Promise((resolve) => world.setTimeout(() => resolve(fetch(...args)), 4000));
  world.WebSocket = class extends WebSocket {
    connect() {
      world.setTimeout(() => super.connect(), 4000);
    }
  };
  const { bus } = await using(["websocket", "eventsource", "polling"], { world, ms: 20_000 });
  assert.equal(bus.transport, "websocket");
  const one = new World();
  one.WebSocket = world.WebSocket;
  const forced = await using("websocket", { world, ms: MINUTE });
  assert.equal(forced.bus.transport, "websocket");
});

test("a main thread that was busy longer than the time-out does not cost a transport", async () => {
  const world = new World();
  world.behave.websocket = "silent";
  const { bus } = await using(["websocket", "polling"], { world, ms: 0 });
  await world.advance(10);
  // Timer and answer are both due when the thread is free again, and the timer comes first.
  world.time += 4000;
  const [socket] = world.sockets;
  world.setTimeout(() => (socket.onopen({}), socket.receive([])), 20);
  await world.advance(100);
  assert.deepEqual([bus.transport, world.polls.length], ["websocket", 0]);
});

// ---- a better transport ----

test("a better transport is tried beside the one in use, which stays until the other has spoken", async () => {
  const { world, bus, chat } = await using(["websocket", "eventsource", "polling"], { behave: { websocket: "fail" }, ms: 4 * MINUTE });
  assert.equal(bus.transport, "eventsource");
  world.behave.websocket = "mute";
  await world.advance(1 * MINUTE + 5000);
  const [socket] = world.sockets.slice(-1);
  assert.deepEqual([world.sockets.length, world.source.closed], [2, false]);
  world.source.receive([message("/chat", 6)]);
  socket.receive([message("/chat", 6), message("/chat", 7)]);
  assert.deepEqual([chat.data, bus.transport, world.source.closed, bus.state], [["/chat 6", "/chat 7"], "websocket", true, "connected"]);
  assert.deepEqual(world.stateNames, ["connecting", "connecting", "connected", "connected"]);
  assert.deepEqual(socket.query, { "/chat": "5" });
});

test("a try that fails costs nothing, whether it breaks or stays silent", async () => {
  for (const how of ["fail", "silent", "mute"]) {
    const { world, bus, chat } = await using(["websocket", "eventsource", "polling"], { behave: { websocket: "fail" }, ms: 4 * MINUTE });
    world.behave.websocket = how;
    const source = world.source;
    for (let id = 6; id < 66; id++) {
      await world.advance(2000);
      source.receive([message("/chat", id)]);
    }
    assert.equal(world.sockets.length, 2, how);
    assert.deepEqual([chat.got.length, world.sources.length, bus.transport, world.sockets[1].closed], [60, 1, "eventsource", true], how);
    assert.ok(!world.states.slice(-1)[0][1].message?.includes("closed"), how);
    bus.stop();
  }
});

test("where the connection in use breaks while a better one is tried, that one goes on in its place", async () => {
  const { world, bus } = await using(["websocket", "eventsource", "polling"], { behave: { websocket: "fail" }, ms: 4 * MINUTE });
  world.behave.websocket = "mute";
  await world.advance(1 * MINUTE + 5000);
  world.source.break();
  assert.equal(bus.state, "reconnecting");
  world.sockets.at(-1).receive([]);
  assert.deepEqual([bus.state, bus.transport, world.sources.length], ["connected", "websocket", 1]);
});

test("one on probation is left at its first failure, and tried less often", async () => {
  const { world, bus } = await using(["websocket", "eventsource", "polling"], { behave: { websocket: "fail" }, ms: 4 * MINUTE });
  world.behave.websocket = "open";
  await world.advance(2 * MINUTE);
  assert.equal(bus.transport, "websocket");
});

// ---- the server says when ----

test("__reconnect says when to come back, on every transport, and is no failure of the transport", async () => {
  for (const transport of ["websocket", "eventsource", "streaming", "long-polling"]) {
    const { world, bus } = await using([transport, "polling"]);
    await world.advance(200);
    const before = lines(world);
    const end = [status({ __reconnect: 3000 })];
    if (world.socket) world.socket.receive(end), world.socket.break(1001);
    else if (world.source) world.source.receive(end), world.source.break();
    else if (transport === "streaming") world.poll.send(end), world.poll.end();
    else world.poll.answer(end);
    await world.advance(2900);
    assert.equal(lines(world), before, transport);
    await world.advance(200);
    assert.equal(lines(world), before + 1, transport);
    assert.deepEqual([bus.transport, bus.state], [transport, "connected"]);
    bus.stop();
  }
});

test("a server that restarts often does not lose its websockets", async () => {
  const { world, bus } = await using(["websocket", "eventsource", "polling"]);
  for (let restart = 0; restart < 10; restart++) {
    world.socket.break([1001, 1012, 1013][restart % 3]);
    await world.advance(2500);
  }
  assert.deepEqual([bus.transport, world.sources.length, world.sockets.length], ["websocket", 0, 11]);
});

test("Retry-After of a month is an hour, and no loop", async () => {
  for (const header of ["2592000", "4294967", "Fri, 31 Dec 9999 23:59:59 GMT", "99999999999999999999"]) {
    const world = new World();
    world.answers.push({ status: 503, headers: { "Retry-After": header } });
    await using("polling", { world, ms: 59 * MINUTE });
    assert.equal(world.polls.length, 1, header);
    await world.advance(2 * MINUTE);
    assert.ok(world.polls.length >= 2, header);
  }
});

// ---- it always goes on ----

const anything = (world) => [...world.sockets, ...world.sources, ...world.polls].length;

test("a channel that is followed after all were left in a backoff is asked for", async () => {
  for (const transport of ["websocket", "eventsource", "streaming", "long-polling", "polling"]) {
    const { world, bus } = await using(transport);
    for (const name of Object.keys(world.behave)) world.behave[name] = "fail";
    (world.socket || world.source)?.break();
    if (world.poll && !world.poll.plain) world.poll.fail();
    await world.advance(20_000);
    bus.unsubscribe("/chat");
    await world.advance(200);
    for (const name of Object.keys(world.behave)) world.behave[name] = "open";
    bus.subscribe("/other", () => {});
    await world.advance(5000);
    assert.equal(bus.state, "connected", transport);
    bus.stop();
  }
});

test("a wait that the server asked for survives the back button, and the page with it", async () => {
  const world = new World();
  world.answers.push({ status: 429 });
  const { bus } = await using("polling", { world });
  world.window.emit("pagehide", { persisted: true });
  world.window.emit("pageshow", { persisted: true });
  await world.advance(10_000);
  assert.equal(world.polls.length, 1);
  await world.advance(10_000);
  assert.equal(bus.state, "connected");
});

test("after a wait is over it is over: what wakes the page wakes it", async () => {
  const world = new World();
  world.answers.push({ status: 429 });
  const { bus } = await using(["websocket", "polling"], { world, behave: { websocket: "fail" }, ms: MINUTE });
  assert.equal(bus.state, "connected");
  world.behave.websocket = "open";
  world.window.emit("online");
  await world.advance(10);
  assert.equal(bus.state, "connected");
});

test("an exception in shouldLongPollCallback stops nothing", async () => {
  for (const transport of ["long-polling", "streaming", "polling"]) {
    const { world, bus } = await using(transport, { settings: { shouldLongPollCallback() { throw new Error("mine"); } } });
    for (let round = 0; round < 5; round++) {
      await world.advance(MINUTE);
      if (!world.poll.plain && world.poll.kind === "long-polling") world.poll.answer([]);
    }
    assert.ok(anything(world) > 1 || transport === "streaming", transport);
    assert.equal(bus.state, "connected");
    assert.match(JSON.stringify(world.log), /shouldLongPollCallback threw/);
    bus.stop();
  }
});

test("a listener that stops, starts or leaves in the middle of anything leaves a client that works", async () => {
  const acts = {
    stop: (bus) => { bus.stop(); bus.start(); },
    leave: (bus) => { bus.unsubscribe("*"); bus.subscribe("/again", () => {}); },
    retry: (bus) => bus.retry(),
  };
  for (const [name, act] of Object.entries(acts))
    for (const when of ["connecting", "connected", "reconnecting"]) {
      const world = new World();
      let acted = 0;
      const bus = world.bus({ transports: ["websocket", "polling"] });
      bus.on("state", (state) => { if (state === when && ++acted === 1) act(bus); });
      bus.subscribe("/chat", () => {});
      bus.start();
      await world.advance(1000);
      world.socket.break();
      await world.advance(20_000);
      assert.deepEqual([bus.state, acted > 0], ["connected", true], `${name} when ${when}`);
      assert.equal(world.sockets.filter(({ closed }) => !closed).length - 1 <= 1, true);
      bus.stop();
    }
});

test("a queue that is full while paused rests the client, and says so", async () => {
  const { world, bus } = await using("websocket");
  bus.pause();
  world.socket.receive(Array.from({ length: 1000 }, (_, index) => message("/chat", index + 6)));
  assert.equal(bus.state, "idle");
  bus.resume();
  await world.advance(200);
  assert.equal(bus.state, "connected");
});

test("a console that throws does not stop the delivery", async () => {
  const world = new World();
  const console = { error() { throw new Error("patched"); }, warn() {}, log() {} };
  const bus = world.createMessageBus({ transports: ["websocket"] }, { console });
  const chat = recorder();
  bus.subscribe("/chat", () => { throw new Error("mine"); });
  bus.subscribe("/chat", chat);
  bus.start();
  await world.advance(100);
  for (const id of [1, 2, 3, 4]) {
    if (world.socket.closed) await world.advance(3000);
    world.socket.receive([message("/chat", id)]);
    await world.advance(3000);
  }
  assert.ok(chat.got.length > 0 || bus.state === "connected");
});
