// What subscribe returns, and where each subscription begins.
import assert from "node:assert/strict";
import test from "node:test";
import { FORBIDDEN, World, gap, message, recorder, refusal, say, started, status } from "./fakes.js";

const ALL = ["websocket", "eventsource", "streaming", "long-polling", "polling"];

// ---- the handle ----

test("the handle undoes the subscription when it is called, and by unsubscribe, which returns nothing", async () => {
  const { bus } = await started();
  const [first, second] = [bus.subscribe("/a", () => {}), bus.subscribe("/a", () => {})];
  assert.equal(first.unsubscribe(), undefined);
  second();
  assert.deepEqual([Object.keys(bus.diagnostics().channels), first.channel, first()], [[], "/a", false]);
});

test("ready tells when the channel was joined, and where it stands, on every transport", async () => {
  for (const name of ALL) {
    const { world, bus } = await started({ transports: [name] }, (bus) => void bus.subscribe("/first", () => {}));
    await world.advance(1000);
    const handle = bus.subscribe("/chat", () => {}, 5);
    let joined;
    handle.ready.then((told) => (joined = told));
    assert.equal(joined, undefined, name);
    await world.advance(1000);
    assert.deepEqual(joined, { channel: "/chat", position: 5 }, name);
    assert.deepEqual(await handle.ready, joined, name);
    bus.stop();
  }
});

test("ready is rejected with the server's words where a person has to mend it, and nothing is where nobody asked", async () => {
  const { world, followed: [asked] } = await started({}, (bus) => [bus.subscribe("/a", () => {}), bus.subscribe("/b", () => {})]);
  const ready = asked.ready;
  world.socket.receive([refusal({ "/a": FORBIDDEN, "/b": FORBIDDEN })]);
  await ready; // it was joined before
  const { world: other, bus } = await started();
  other.answerCommands = ({ subscribe }) => ({ refused: Object.fromEntries(Object.keys(subscribe).map((name) => [name, FORBIDDEN])) });
  const handle = bus.subscribe("/a", () => {}, 1);
  await other.advance(0);
  const late = bus.subscribe("/b", () => {});
  other.behave.websocket = "open";
  bus.subscribe("/c", () => {});
  await other.advance(10);
  const rejected = assert.rejects(handle.ready, { code: "forbidden", message: "not you" });
  other.socket.receive([refusal({ "/a": FORBIDDEN })]);
  await rejected.catch(() => {});
  void late;
});

test("position is that of the subscription", async () => {
  const { world, followed: handle } = await started({}, (bus) => bus.subscribe("/chat", () => {}, 5));
  assert.equal(handle.position, 5);
  world.socket.receive([message("/chat", 6)]);
  assert.equal(handle.position, 6);
});

// ---- where each begins ----

test("a channel that is left and followed again in the same turn keeps its position and its connection", async () => {
  for (const name of ALL) {
    const { world, bus } = await started({ transports: [name] }, (bus) => void bus.subscribe("/chat", () => {}, 5));
    await world.advance(300);
    const lines = () => world.sockets.length + world.sources.length + world.polls.length;
    const before = lines() + (name === "long-polling"), again = recorder(); // its answer is followed by the next
    bus.unsubscribe("/chat");
    bus.subscribe("/chat", again);
    if (name !== "polling") {
      say(world, [message("/chat", 6)]);
      await world.advance(50);
      assert.deepEqual(again.data, ["/chat 6"], name);
    }
    await world.advance(50);
    assert.deepEqual([lines(), bus.diagnostics().channels["/chat"]], [before, name === "polling" ? 5 : 6], name);
    bus.stop();
  }
});

test("an effect that runs again after each message costs no connection and no message", async () => {
  const { world, bus } = await started();
  const got = [];
  let undo;
  const effect = () => (undo = bus.subscribe("/chat", (data, globalId, id) => { got.push(id); undo(); effect(); }));
  effect();
  await world.advance(10);
  for (let id = 1; id <= 200; id++) {
    world.socket.receive([message("/chat", id)]);
    if (id % 3) await world.advance(id % 50);
  }
  assert.deepEqual([got, world.sockets.length], [Array.from({ length: 200 }, (_, index) => index + 1), 1]);
});

test("a page's position is kept for its channel until the channel has moved", async () => {
  const variants = {
    "in a row": (bus) => bus.subscribe("/chat", () => {})(),
    "with a turn between": async (bus, world) => { bus.subscribe("/chat", () => {})(); await world.advance(0); },
    "started before": async (bus, world) => { bus.start(); bus.subscribe("/chat", () => {})(); await world.advance(0); },
  };
  for (const [name, first] of Object.entries(variants)) {
    const world = new World();
    const bus = world.bus();
    bus.continueFrom({ "/chat": "@17" }, "e1");
    await first(bus, world);
    const chat = recorder();
    bus.subscribe("/chat", chat);
    bus.start();
    await world.advance(200);
    assert.deepEqual(world.socket.query, { "/chat": "@17", __epoch: "e1" }, name);
    world.socket.receive([message("/chat", 3)]);
    bus.unsubscribe("/chat");
    await world.advance(1000);
    bus.subscribe("/chat", () => {});
    await world.advance(1000);
    assert.deepEqual([chat.data, bus.diagnostics().channels["/chat"]], [["/chat 3"], -1], name);
    bus.stop();
  }
});

test("two subscriptions of one channel each get what comes after their own position", async () => {
  const { world, bus } = await started({}, (bus) => void bus.subscribe("/chat", () => {}, 50));
  const [first, later] = [recorder(), recorder()];
  bus.subscribe("/chat", first);
  world.socket.receive([message("/chat", 51), message("/chat", 52)]);
  bus.subscribe("/chat", later, 50);
  world.socket.receive([message("/chat", 53)]); // on the way meanwhile
  await world.advance(10);
  assert.deepEqual(world.socket.sent, [{ subscribe: { "/chat": 50 } }]);
  world.socket.receive([51, 52, 53, 54].map((id) => message("/chat", id)));
  assert.deepEqual(first.data, [51, 52, 53, 54].map((id) => `/chat ${id}`));
  assert.deepEqual(later.data, [51, 52, 53, 54].map((id) => `/chat ${id}`));
  assert.equal(world.sockets.length, 1);
});

test("on the other transports the next request asks from the earlier position", async () => {
  for (const name of ["eventsource", "streaming", "long-polling"]) {
    const first = recorder(), later = recorder();
    const { world, bus } = await started({ transports: [name] }, (bus) => void bus.subscribe("/chat", first, 50));
    await world.advance(300);
    say(world, [message("/chat", 51)]);
    await world.advance(300);
    bus.subscribe("/chat", later, 0);
    await world.advance(200);
    const asked = (world.sources.at(-1)?.query || world.poll.form)["/chat"];
    assert.equal(asked, "0", name);
    say(world, [message("/chat", 1), message("/chat", 51), message("/chat", 52)]);
    await world.advance(50);
    assert.deepEqual(first.data, ["/chat 51", "/chat 52"], name);
    assert.deepEqual(later.data, ["/chat 1", "/chat 51", "/chat 52"], name);
    bus.stop();
  }
});

test("one from now on and one from the beginning each get their own, whichever came first", async () => {
  for (const order of [[undefined, 0], [-1, 0], [0, -1]]) {
    const got = order.map(() => recorder());
    const { world, bus } = await started({}, (bus) => order.forEach((lastId, index) => bus.subscribe("/chat", got[index], lastId)));
    if (order[0] !== 0) {
      assert.deepEqual(world.socket.query, { "/chat": "-1" });
      world.socket.receive([status({ "/chat": 2 })]);
      await world.advance(200);
      assert.deepEqual(world.socket.sent, [{ subscribe: { "/chat": 0 } }]);
      world.socket.receive([message("/chat", 1), message("/chat", 2)]);
    }
    world.socket.receive([message("/chat", 3)]);
    const [now, all] = order[0] === 0 ? [got[1], got[0]] : got;
    assert.deepEqual(now.data, ["/chat 3"], `${order}`);
    if (order[0] !== 0) assert.deepEqual(all.data, ["/chat 1", "/chat 2", "/chat 3"], `${order}`);
    bus.stop();
  }
});

test("the last few, or what came after a global id, can be asked for on a channel that is followed", async () => {
  for (const lastId of [-3, "@480"]) {
    const { world, bus } = await started({}, (bus) => void bus.subscribe("/chat", () => {}, 50));
    const first = recorder(), more = recorder();
    bus.subscribe("/chat", first);
    bus.subscribe("/chat", more, lastId);
    await world.advance(10);
    assert.deepEqual(world.socket.sent, [{ subscribe: { "/chat": lastId } }]);
    world.socket.receive([message("/chat", 49), message("/chat", 50), message("/chat", 51)]);
    assert.deepEqual([first.data, more.data], [["/chat 51"], [49, 50, 51].map((id) => `/chat ${id}`)], `${lastId}`);
    bus.stop();
  }
});

test("what waits in a paused queue is delivered before a channel is asked from further back", async () => {
  const first = recorder(), later = recorder();
  const { world, bus } = await started({}, (bus) => void bus.subscribe("/chat", first, 5));
  bus.pause();
  world.socket.receive([message("/chat", 6), message("/chat", 7)]);
  bus.subscribe("/chat", later, 0);
  await world.advance(200);
  assert.equal(world.socket.sent.length, 0);
  bus.resume();
  await world.advance(200);
  assert.deepEqual(world.socket.sent, [{ subscribe: { "/chat": 0 } }]);
  world.socket.receive([1, 6, 7, 8].map((id) => message("/chat", id)));
  assert.deepEqual([first.data, later.data], [[6, 7, 8], [1, 6, 7, 8]].map((ids) => ids.map((id) => `/chat ${id}`)));
});

test("a store that was reset starts again for every subscription", async () => {
  const [first, later] = [recorder(), recorder()];
  const { world, bus } = await started({}, (bus) => void (bus.subscribe("/chat", first, 50), bus.subscribe("/chat", later, 60)));
  world.socket.receive([message("/chat", 61)]);
  world.socket.receive([gap({ "/chat": { after: null, before: 1 } }), message("/chat", 1)]);
  assert.deepEqual([first.data, later.data], [["/chat 61", "/chat 1"], ["/chat 61", "/chat 1"]]);
  void bus;
});

test("a status that comes late moves no position back", async () => {
  const { world, bus, followed: chat } = await started({}, (bus) => { const one = recorder(); bus.subscribe("/chat", one, 5); return one; });
  world.socket.receive([message("/chat", 6), message("/chat", 7)]);
  world.socket.receive([status({ "/chat": 6 }), message("/chat", 7)]);
  assert.deepEqual([chat.data, bus.diagnostics().channels["/chat"]], [["/chat 6", "/chat 7"], 7]);
  world.socket.receive([status({ "/chat": 20 })]);
  assert.equal(bus.diagnostics().channels["/chat"], 20);
});

test("keys of a status that begin with two underscores are no channels", async () => {
  const { world, bus } = await started({}, (bus) => void bus.subscribe("/chat", () => {}, 5));
  world.socket.receive([status({ __epoch: "e", __something: { new: 1 }, "/chat": 6 })]);
  assert.deepEqual(bus.diagnostics().channels, { "/chat": 6 });
});
