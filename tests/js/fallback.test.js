// Which transport is used: falling to the next, remembering what worked, and coming back to the better one.
import assert from "node:assert/strict";
import test from "node:test";
import { World, message, recorder } from "./fakes.js";

const MINUTE = 60_000;
const KEY = "messagebus:/";

async function behaving(behave, { world = new World(), settings = {}, ms = 20_000 } = {}) {
  Object.assign(world.behave, behave);
  const bus = world.bus(settings);
  const chat = recorder();
  bus.subscribe("/chat", chat, 5);
  bus.start();
  await world.advance(ms);
  return { world, bus, chat };
}

test("websocket is preferred where it works", async () => {
  const { bus, world } = await behaving({});
  assert.deepEqual([bus.transport, world.sources.length, world.polls.length], ["websocket", 0, 0]);
});

for (const how of ["fail", "silent"]) {
  test(`transports that ${how === "fail" ? "fail to open" : "stay silent"} are passed over, one after the other`, async () => {
    const blocked = {};
    for (const [name, next] of [["websocket", "eventsource"], ["eventsource", "streaming"], ["streaming", "long-polling"]]) {
      blocked[name] = how;
      const { bus } = await behaving(blocked);
      assert.deepEqual([bus.transport, bus.state], [next, "connected"]);
      bus.stop();
    }
  });
}

test("a held poll that never gets through leaves plain polling", async () => {
  const blocked = { websocket: "fail", eventsource: "fail", streaming: "fail", "long-polling": "fail" };
  const { bus } = await behaving(blocked);
  assert.deepEqual([bus.transport, bus.state], ["polling", "connected"]);
});

test("silence is given up after firstChunkTimeout", async () => {
  const { world, bus } = await behaving({ websocket: "silent" }, { ms: 2900 });
  assert.equal(world.polls.length, 0);
  await world.advance(200);
  assert.deepEqual([world.sockets[0].closed, bus.transport], [true, "eventsource"]);
});

test("a stream whose first batch is long in coming is not silent", async () => {
  const { world, bus, chat } = await behaving({ streaming: "silent" }, { settings: { transports: ["streaming", "polling"] }, ms: 1000 });
  const [first, ...rest] = JSON.stringify([message("/chat", 6)]) + "\r\n|\r\n";
  world.poll.write(first);
  await world.advance(10_000);
  world.poll.write(rest.join(""));
  await world.advance(0);
  assert.deepEqual([chat.data, bus.transport, world.polls.length], [["/chat 6"], "streaming", 1]);
});

test("the poll that tells a blocked transport from a server that is gone already delivers", async () => {
  const world = new World();
  world.answers.push([message("/chat", 6)]);
  const { chat, bus } = await behaving({ websocket: "fail" }, { world });
  assert.deepEqual([chat.data, bus.transport, world.source.query], [["/chat 6"], "eventsource", { "/chat": "6" }]);
});

test("a constructor that throws, as under a strict security policy, is a failure to open", async () => {
  const world = new World();
  world.WebSocket = class { constructor() { throw new Error("SecurityError"); } };
  assert.equal((await behaving({}, { world })).bus.transport, "eventsource");
});

test("missing globals are passed over without a request", async () => {
  const world = new World();
  world.WebSocket = world.EventSource = undefined;
  const { bus } = await behaving({}, { world });
  assert.deepEqual([bus.transport, world.polls.length], ["streaming", 1]);
});

// The transports that were left, and that no page is to begin with.
const left = (world) => Object.entries(JSON.parse(world.store.get(KEY) || "{}")).filter(([, { gap }]) => gap).map(([name]) => name);

test("what failed is remembered for the next page, which asks for it no more, until it is time to try it again", async () => {
  const world = new World();
  const first = await behaving({ websocket: "fail" }, { world });
  assert.deepEqual(left(world), ["websocket"]);
  first.bus.stop();
  const sockets = world.sockets.length;
  const second = await behaving({ websocket: "open" }, { world, ms: 100 });
  assert.deepEqual([second.bus.transport, world.sockets.length], ["eventsource", sockets]);
  await world.advance(6 * MINUTE);
  assert.equal(second.bus.transport, "websocket");
  assert.deepEqual(left(world), []);
});

test("a page that is left before all has been tried spares the next one what has", async () => {
  const world = new World();
  const first = await behaving({ websocket: "silent", eventsource: "silent" }, { world, ms: 3100 });
  first.bus.stop();
  const second = await behaving({}, { world, ms: 100 });
  assert.deepEqual([second.bus.transport, world.sockets.length, world.sources.length], [null, 1, 2]);
});

test("one bad moment of a transport that works does not demote the pages that follow", async () => {
  const world = new World();
  (await behaving({}, { world })).bus.stop();
  world.behave.websocket = "fail"; // the worker that it comes to is just being replaced
  const second = world.bus();
  second.subscribe("/chat", () => {});
  second.start();
  await world.advance(20);
  world.behave.websocket = "open";
  await world.advance(5000);
  assert.equal(second.transport, "websocket");
  second.stop();
  assert.equal((await behaving({}, { world, ms: 100 })).bus.transport, "websocket");
});

test("nonsense where the transport should be remembered is no harm", async () => {
  for (const nonsense of ["5", "{}", '"x"', "null", "[", "[7]"]) {
    const world = new World();
    world.store.set(KEY, nonsense).set("__mbLastAjax", nonsense);
    world.show("hidden");
    assert.equal((await behaving({}, { world })).bus.transport, "websocket", nonsense);
    assert.equal((await behaving({}, { world, settings: { transports: ["polling"] } })).bus.transport, "polling", nonsense);
  }
});

test("after an hour at most a page begins with the first transport again", async () => {
  const world = new World();
  const { bus } = await behaving({ websocket: "fail" }, { world, ms: 60 * MINUTE });
  bus.stop();
  world.time += 61 * MINUTE;
  assert.equal((await behaving({ websocket: "open" }, { world, ms: 100 })).bus.transport, "websocket");
});

test("a calendar that was set back does not keep a transport away", async () => {
  const world = new World();
  (await behaving({ websocket: "fail" }, { world })).bus.stop();
  world.time -= 1000 * MINUTE;
  assert.equal((await behaving({ websocket: "open" }, { world, ms: 100 })).bus.transport, "websocket");
});

test("what is remembered belongs to the mount point, and a store that throws is no harm", async () => {
  const world = new World();
  await behaving({ websocket: "fail" }, { world, settings: { baseUrl: "/app/" } });
  assert.deepEqual([...world.store.keys()].sort(), ["__mbLastAjax", "messagebus:/app/"]);
  const broken = new World();
  broken.behave.websocket = "fail";
  const localStorage = { getItem() { throw new Error("SecurityError"); } };
  const guarded = broken.bus({}, { localStorage });
  guarded.subscribe("/chat", () => {});
  guarded.start();
  await broken.advance(1000);
  assert.equal(guarded.transport, "eventsource");
  guarded.stop();
});

test("better transports are tried again after five minutes, then less and less often", async () => {
  const { world, bus } = await behaving({ websocket: "fail" });
  const tries = () => world.sockets.map(({ at }) => Math.round((at - world.sockets[0].at) / MINUTE));
  for (let minute = 0; minute < 40; minute++) {
    await world.advance(MINUTE);
    assert.equal(bus.state, "connected");
  }
  assert.deepEqual(tries(), [0, 5, 15, 35]);
  assert.deepEqual([bus.transport, bus.state], ["eventsource", "connected"]);
});

test("hidden tabs leave the better transport for later", async () => {
  const { world, bus } = await behaving({ websocket: "fail" });
  world.behave.websocket = "open";
  world.show("hidden");
  await world.advance(8 * MINUTE);
  assert.equal(bus.transport, "eventsource");
  world.show("visible");
  await world.advance(6000);
  assert.equal(bus.transport, "websocket");
});

test("streaming is tried again after retryChunkedAfterRequests held polls", async () => {
  const settings = { transports: ["streaming", "long-polling"], retryChunkedAfterRequests: 3 };
  const { world, bus } = await behaving({ streaming: "silent" }, { settings });
  world.behave.streaming = "open";
  for (let id = 6; id < 9; id++) {
    assert.equal(bus.transport, "long-polling");
    world.poll.answer([message("/chat", id)]);
    await world.advance(150);
  }
  assert.equal(bus.transport, "streaming");
});

test("a websocket that holds for a while and breaks is opened again, however often", async () => {
  const { world, bus } = await behaving({});
  for (let cut = 0; cut < 6; cut++) {
    await world.advance(26_000);
    world.socket.break();
    await world.advance(1100);
  }
  assert.deepEqual([bus.transport, world.sockets.length, world.polls.length, world.sources.length], ["websocket", 7, 0, 0]);
});

test("a websocket that breaks each time a moment after it has brought a message is given up", async () => {
  const { world, bus, chat } = await behaving({});
  for (let cut = 0; cut < 100 && bus.transport === "websocket"; cut++) {
    if (world.socket.closed || world.socket.cut) await world.advance(500);
    else {
      world.socket.receive([message("/chat", 6 + cut)]);
      world.socket.break();
      world.socket.cut = true;
    }
  }
  assert.ok(world.sockets.length < 10, `${world.sockets.length} handshakes`);
  assert.equal(bus.transport, "eventsource");
  assert.deepEqual(chat.data, [...new Set(chat.data)]);
});

test("a websocket that opens and then says nothing is never taken for a connection", async () => {
  const { world, bus } = await behaving({ websocket: "mute" }, { ms: 2900 });
  assert.equal(bus.state, "connecting");
  world.answers.push([message("/chat", 6)]);
  await world.advance(1000);
  assert.deepEqual([bus.state, bus.transport, world.sockets.length], ["connected", "eventsource", 1]);
  await world.advance(4 * MINUTE);
  assert.deepEqual([bus.transport, world.sockets.length], ["eventsource", 1]);
});

test("a connection that lets the first bytes pass and keeps the rest is left when its silence is noticed", async () => {
  const world = new World();
  world.beats = false;
  const { bus } = await behaving({}, { world, ms: 50_000, settings: { transports: ["eventsource", "polling"] } });
  assert.deepEqual([bus.transport, world.sources.length], ["polling", 1]);
});

test("a websocket that had worked is given up after three failures while the server answers polls", async () => {
  const { world, bus } = await behaving({});
  world.behave.websocket = "fail";
  world.socket.break();
  await world.advance(20_000);
  assert.deepEqual([world.sockets.length, bus.transport], [4, "eventsource"]);
});

test("a websocket that is let in and thrown out at once is given up as well", async () => {
  const world = new World();
  const { bus } = await behaving({}, { world, ms: 10 });
  for (let round = 0; round < 20 && bus.transport === "websocket"; round++) {
    world.socket.break();
    await world.advance(2000);
  }
  assert.deepEqual([world.sockets.length, bus.transport], [3, "eventsource"]);
});

const DEAD = { websocket: "fail", eventsource: "fail", streaming: "fail", "long-polling": "fail", polling: "fail" };
const ALIVE = { websocket: "open", eventsource: "open", streaming: "open", "long-polling": "open", polling: "open" };

test("a server that was gone finds its clients on the transport they had", async () => {
  const { world, bus } = await behaving({});
  Object.assign(world.behave, DEAD);
  world.socket.break();
  await world.advance(5 * MINUTE);
  assert.equal(bus.state, "reconnecting");
  Object.assign(world.behave, ALIVE);
  await world.advance(3 * MINUTE);
  assert.deepEqual([bus.transport, bus.state, world.sources.length], ["websocket", "connected", 0]);
  assert.deepEqual(left(world), []);
});

test("a page that was loaded while the server was gone ends up on the best transport", async () => {
  const { world, bus } = await behaving(DEAD, { ms: MINUTE });
  assert.equal(bus.state, "connecting");
  Object.assign(world.behave, ALIVE);
  await world.advance(3 * MINUTE);
  assert.deepEqual([bus.transport, bus.state], ["websocket", "connected"]);
});

test("a single transport that is forced is never left, and no other is asked", async () => {
  const { world, bus } = await behaving({ websocket: "fail" }, { settings: { transports: ["websocket"] }, ms: MINUTE });
  assert.deepEqual([world.polls.length, world.sources.length, bus.state], [0, 0, "connecting"]);
  world.behave.websocket = "open";
  await world.advance(3 * MINUTE);
  assert.equal(bus.transport, "websocket");
});

test("a list that is blocked as a whole is tried again in good time, and the polls between deliver", async () => {
  const settings = { transports: ["websocket", "eventsource"], callbackInterval: 15_000 };
  const { world, bus, chat } = await behaving({ websocket: "fail", eventsource: "fail" }, { settings, ms: MINUTE });
  assert.ok(world.sockets.length <= 6, `${world.sockets.length} attempts in a minute`);
  world.answers.push([message("/chat", 6)]);
  await world.advance(20_000);
  assert.deepEqual(chat.data, ["/chat 6"]);
  world.behave.eventsource = "open";
  await world.advance(20_000);
  assert.equal(bus.transport, "eventsource");
});

test("nothing is lost or doubled over changes of transport", async () => {
  const { world, chat } = await behaving({});
  world.socket.receive([message("/chat", 6)]);
  world.behave.websocket = "fail";
  world.answers.push([message("/chat", 7)], [message("/chat", 8)], [], []);
  world.socket.break();
  await world.advance(20_000);
  world.source.receive([message("/chat", 8), message("/chat", 9)]);
  assert.deepEqual(chat.data, [6, 7, 8, 9].map((id) => `/chat ${id}`));
});
