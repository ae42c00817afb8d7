import assert from "node:assert/strict";
import test from "node:test";
import { World, message, recorder, status } from "./fakes.js";

async function using(name, settings = {}, position = 5) {
  const world = new World();
  const bus = world.bus({ transports: [name], clientId: "c1", ...settings });
  const chat = recorder();
  bus.subscribe("/chat", chat, position);
  bus.start();
  await world.advance(10);
  return { world, bus, chat };
}

test("the websocket's address has the mount point, the client and the channels", async () => {
  const { world } = await using("websocket", { baseUrl: "/app" });
  assert.equal(world.socket.url, "ws://page.test/app/message-bus/c1/ws?%2Fchat=5");
  assert.equal((await using("websocket", { baseUrl: "https://other.test/" })).world.socket.url, "wss://other.test/message-bus/c1/ws?%2Fchat=5");
});

test("eventsource asks with its channels and delivers batches", async () => {
  const { world, bus, chat } = await using("eventsource");
  assert.equal(world.source.url, "/message-bus/c1/sse?%2Fchat=5");
  world.source.receive([message("/chat", 6)]);
  assert.deepEqual([chat.data, bus.transport, bus.state], [["/chat 6"], "eventsource", "connected"]);
});

test("eventsource that breaks is closed and opened again from the new positions", async () => {
  const { world } = await using("eventsource");
  world.source.receive([message("/chat", 6)]);
  world.source.break();
  assert.equal(world.sources[0].closed, true);
  await world.advance(600);
  assert.deepEqual([world.sources.length, world.source.query], [2, { "/chat": "6" }]);
});

test("a poll is a form with positions, counter and epoch, and headers of the field", async () => {
  const { world } = await using("polling", { headers: { "X-Mine": "1" }, minPollInterval: 50 });
  assert.equal(world.poll.url, "/message-bus/c1/poll?dlp=t");
  assert.deepEqual(world.poll.form, { "/chat": "5", __seq: "1", __epoch: "" });
  assert.equal(world.poll.type, "application/x-www-form-urlencoded;charset=UTF-8");
  assert.deepEqual(world.poll.headers, { "X-SILENCE-LOGGER": "true", "Dont-Chunk": "true", "X-Mine": "1" });
  world.answers.push([status({ "/chat": 5, __epoch: "e" })]);
  await world.advance(15000);
  await world.advance(15000);
  assert.deepEqual(world.poll.form, { "/chat": "5", __epoch: "e", __seq: String(world.polls.length) });
});

test("names with spaces, plus signs and Unicode are percent-encoded", async () => {
  const world = new World();
  const bus = world.bus({ transports: ["eventsource"] });
  bus.subscribe("/a b+c/ü", () => {}, "@17");
  bus.start();
  await world.advance(10);
  assert.match(world.source.url, /\?%2Fa%20b%2Bc%2F%C3%BC=%4017$/);
});

test("plain polling asks every callbackInterval, and at once again when there was something", async () => {
  const { world, chat } = await using("polling", { callbackInterval: 15000, minPollInterval: 100 });
  assert.equal(world.polls.length, 1);
  world.answers.push([message("/chat", 6)]);
  await world.advance(15000);
  assert.deepEqual([world.polls.length, chat.data], [2, ["/chat 6"]]);
  await world.advance(200);
  assert.deepEqual([world.polls.length, world.poll.form["/chat"]], [3, "6"]);
  await world.advance(14000);
  assert.equal(world.polls.length, 3);
});

test("long polling greets with a plain poll, then holds", async () => {
  const { world, bus, chat } = await using("long-polling");
  assert.deepEqual([world.poll.plain, bus.state], [true, "connected"]);
  await world.advance(200);
  assert.equal(world.poll.kind, "long-polling");
  await world.advance(25000);
  assert.equal(world.polls.length, 2);
  world.poll.answer([message("/chat", 6)]);
  await world.advance(150);
  assert.deepEqual([chat.data, world.polls.length, world.poll.form["/chat"]], [["/chat 6"], 3, "6"]);
});

test("a held poll that ends empty is followed by the next soon; one answered at once by callbackInterval", async () => {
  const { world } = await using("long-polling");
  await world.advance(25000);
  world.poll.answer([]);
  await world.advance(150);
  assert.equal(world.polls.length, 3);
  world.poll.answer([]); // the server holds as many as it can
  await world.advance(14000);
  assert.equal(world.polls.length, 3);
  await world.advance(1100);
  assert.equal(world.polls.length, 4);
});

test("a stream carries many batches, and the next begins when it ends in good order", async () => {
  const { world, bus, chat } = await using("streaming");
  assert.ok(!("Dont-Chunk" in world.poll.headers));
  world.poll.send([message("/chat", 6)]);
  await world.advance(1000);
  world.poll.send([message("/chat", 7)]);
  await world.advance(24000);
  world.poll.send([]);
  world.poll.end();
  await world.advance(150);
  assert.deepEqual([chat.data, world.polls.length, world.poll.form["/chat"]], [["/chat 6", "/chat 7"], 2, "7"]);
  assert.deepEqual(world.stateNames, ["connecting", "connected"]);
  bus.stop();
});

test("a new channel makes the polls and eventsource ask again, once", async () => {
  for (const name of ["eventsource", "streaming", "long-polling"]) {
    const { world, bus } = await using(name);
    await world.advance(600);
    const before = world.polls.length + world.sources.length;
    bus.subscribe("/a", () => {});
    bus.subscribe("/b", () => {});
    await world.advance(50);
    assert.equal(world.polls.length + world.sources.length, before + 1, name);
    assert.equal((world.source?.query || world.poll.form)["/b"], "-1", name);
    assert.equal(bus.state, "connected", name);
    bus.stop();
  }
});

test("subscribing and leaving within a moment asks nothing", async () => {
  const { world, bus } = await using("streaming");
  bus.subscribe("/a", () => {})();
  await world.advance(50);
  assert.equal(world.polls.length, 1);
});

test("a late answer of an older request is ignored", async () => {
  const { world, bus, chat } = await using("long-polling");
  await world.advance(200);
  const older = world.poll;
  older.fail = () => {}; // a fetch that cannot be aborted any more
  bus.subscribe("/a", () => {});
  await world.advance(50);
  older.answer([message("/chat", 6)]);
  await world.advance(50);
  assert.deepEqual([chat.got, bus.diagnostics().channels["/chat"]], [[], 5]);
});

test("own headers rule out the transports that cannot send them", async () => {
  const world = new World();
  const bus = world.bus({ headers: { Authorization: "x" } });
  bus.subscribe("/a", () => {});
  bus.start();
  await world.advance(10);
  assert.deepEqual([world.sockets.length, world.sources.length, bus.transport], [0, 0, "streaming"]);
});

test("enableChunkedEncoding and enableLongPolling rule out streams and held polls", async () => {
  const transports = ["streaming", "long-polling", "polling"];
  for (const [settings, expected] of [[{}, "streaming"], [{ enableChunkedEncoding: false }, "long-polling"], [{ enableLongPolling: false }, "polling"]]) {
    const { world, bus } = await using("polling", { transports, ...settings });
    await world.advance(200);
    assert.deepEqual([bus.transport, world.poll.kind], [expected, expected]);
  }
});

test("hidden tabs poll every backgroundCallbackInterval, and at once when they are shown", async () => {
  const { world } = await using("long-polling");
  await world.advance(200);
  world.show("hidden");
  world.poll.answer([]);
  await world.advance(2000);
  const held = world.polls.length;
  await world.advance(70000);
  assert.ok(world.poll.plain);
  assert.ok(world.polls.length - held <= 2, `${world.polls.length - held} polls in 70 s`);
  const before = world.polls.length;
  world.show("visible");
  await world.advance(0);
  assert.deepEqual([world.polls.length, world.poll.kind], [before + 1, "long-polling"]);
});

test("a hidden tab that gets something polls again after minHiddenPollInterval", async () => {
  const { world } = await using("polling");
  world.show("hidden");
  world.answers.push([message("/chat", 6)]);
  await world.advance(15000);
  const before = world.polls.length;
  await world.advance(1400);
  assert.equal(world.polls.length, before);
  await world.advance(200);
  assert.equal(world.polls.length, before + 1);
});

test("alwaysLongPoll and shouldLongPollCallback decide in place of the tab's visibility", async () => {
  for (const [settings, visibility, expected] of [
    [{ alwaysLongPoll: true }, "hidden", "long-polling"],
    [{ shouldLongPollCallback: () => true }, "hidden", "long-polling"],
    [{ shouldLongPollCallback: () => false }, "visible", "polling"],
  ]) {
    const { world } = await using("long-polling", settings);
    world.show(visibility);
    await world.advance(70000);
    assert.equal(world.poll.kind, expected, JSON.stringify(settings));
  }
});

test("streams and websockets stay open in hidden tabs", async () => {
  for (const name of ["websocket", "eventsource"]) {
    const { world } = await using(name);
    world.show("hidden");
    await world.advance(30000);
    const [line] = [...world.sockets, ...world.sources];
    line.receive([]);
    world.show("visible");
    await world.advance(1000);
    assert.deepEqual([world.sockets.length + world.sources.length, line.closed], [1, false], name);
  }
});

test("many channels: the websocket sends what does not fit in its address, eventsource leaves it to streaming", async () => {
  const names = Array.from({ length: 200 }, (_, index) => `/room/with/a/long/name/${index}`);
  const many = async (transports) => {
    const world = new World();
    const bus = world.bus({ transports });
    for (const name of names) bus.subscribe(name, () => {});
    bus.start();
    await world.advance(10);
    return { world, bus };
  };
  const { world } = await many(["websocket"]);
  assert.ok(world.socket.url.length < 3200);
  assert.deepEqual(Object.keys({ ...world.socket.query, ...world.socket.sent[0].subscribe }).sort(), [...names].sort());
  assert.equal((await many(["eventsource", "streaming"])).bus.transport, "streaming");
});

test("silence past heartbeatTimeout is a broken connection", async () => {
  for (const name of ["websocket", "eventsource", "streaming"]) {
    const { world, bus } = await using(name, { heartbeatTimeout: 65000 });
    world.beats = false;
    const lines = () => world.sockets.length + world.sources.length + world.polls.length;
    await world.advance(60000);
    assert.equal(lines(), 1, name);
    await world.advance(12000);
    assert.equal(lines(), 2, name);
    assert.equal(bus.state, "connected", name);
    bus.stop();
  }
});

test("heartbeats keep a connection", async () => {
  const { world } = await using("websocket");
  for (let beat = 0; beat < 10; beat++) {
    await world.advance(25000);
    world.socket.receive([]);
  }
  assert.equal(world.sockets.length, 1);
});

test("grants are sent with every request, and with what an open websocket subscribes to", async () => {
  const world = new World();
  const bus = world.bus({ transports: ["polling"], grants: ["one", "two"] });
  bus.subscribe("/private/7", () => {}, 0);
  bus.start();
  await world.advance(10);
  assert.equal(world.poll.form.__grants, "one,two");
  bus.stop();

  const { world: other, bus: socket } = await using("websocket", { grants: ["one"] });
  other.socket.receive([]);
  assert.match(other.socket.url, /__grants=one/);
  socket.grants = ["three"];
  socket.subscribe("/private/7", () => {});
  await other.advance(10);
  assert.deepEqual(other.socket.sent, [{ subscribe: { "/private/7": -1 }, grants: ["three"] }]);
});

test("after stop and start with all transports the best one is tried again, not the one that was forced", async () => {
  const world = new World();
  const bus = world.bus({ transports: ["polling"] });
  bus.subscribe("/chat", () => {});
  bus.start();
  await world.advance(10);
  bus.stop();
  bus.start({ transports: ["websocket", "polling"] });
  await world.advance(10);
  assert.equal(world.sockets.length, 1);
});
