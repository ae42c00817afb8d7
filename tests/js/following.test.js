// Channels come and go on a connection, and patterns bring those of many.
import assert from "node:assert/strict";
import test from "node:test";
import { gap, message, recorder, say, started, status } from "./fakes.js";

const ALL = ["websocket", "eventsource", "streaming", "long-polling", "polling"];

// ---- channels come and go ----

test("toggling between two channels on a websocket makes no new connection, and loses nothing", async () => {
  const { world, bus } = await started();
  const rooms = ["/room/1", "/room/2"];
  const got = recorder();
  let ids = { "/room/1": 0, "/room/2": 0 };
  for (let step = 0; step < 100; step++) {
    const room = rooms[step % 2];
    bus.unsubscribe(rooms[(step + 1) % 2]);
    bus.subscribe(room, got);
    await world.advance(100);
    world.socket.receive([message(room, ++ids[room])]);
  }
  assert.deepEqual([world.sockets.length, got.got.length], [1, 100]);
});

test("a channel that was left is forgotten by its connection", async () => {
  const { world, bus } = await started({}, (bus) => void bus.subscribe("/first", () => {}));
  for (let index = 0; index < 50; index++) {
    const undo = bus.subscribe(`/thing/${index}`, () => {});
    await world.advance(100);
    undo();
    await world.advance(100);
  }
  bus.subscribe("/thing/7", () => {});
  await world.advance(100);
  assert.deepEqual([world.sockets.length, world.socket.sent.at(-1)], [1, { subscribe: { "/thing/7": -1 } }]);
});

test("changes are paced: one request or one frame of a kind for each minPollInterval", async () => {
  for (const name of ALL) {
    const { world, bus } = await started({ transports: [name] }, (bus) => void bus.subscribe("/first", () => {}));
    await world.advance(1000);
    const frames = () => world.sockets.reduce((sum, socket) => sum + socket.frames.length, 0);
    const asked = () => world.sockets.length + world.sources.length + world.polls.length + frames();
    const before = asked();
    for (let frame = 0; frame < 360; frame++) {
      bus.subscribe(`/row/${frame}`, () => {});
      bus.unsubscribe(`/row/${frame - 10}`);
      await world.advance(1000 / 60);
    }
    const rate = (asked() - before) / 6;
    assert.ok(rate <= (name === "websocket" ? 20 : 11), `${name}: ${rate} a second`);
    bus.stop();
  }
});

// ---- patterns ----

test("a pattern brings the messages of its channels, each with its own channel and ids, and stands at the global id", async () => {
  for (const name of ["websocket", "eventsource", "streaming", "long-polling"]) {
    const got = recorder();
    const { world, bus, followed: news } = await started({ transports: [name] }, (bus) => bus.subscribe("/news/*", got, 0));
    say(world, [message("/news/a", 3), message("/else", 4), message("/news/b", 5)]);
    await world.advance(0);
    assert.deepEqual(got.got, [["/news/a 3", 30, 3, "/news/a"], ["/news/b 5", 50, 5, "/news/b"]], name);
    assert.deepEqual([news.position, bus.diagnostics().channels], [50, { "/news/*": 50 }], name);
    bus.stop();
  }
});

test("a pattern goes on from its global id on the next connection, and hears nothing twice", async () => {
  const got = recorder();
  const { world } = await started({}, (bus) => void bus.subscribe("/news/*", got));
  world.socket.receive([status({ "/news/*": 25 }), message("/news/b", 2), message("/news/a", 3)]);
  world.socket.break();
  await world.advance(5000);
  assert.equal(new URL(world.socket.url).searchParams.get("/news/*"), "30");
  world.socket.receive([status({ "/news/*": 30 }), message("/news/b", 3), message("/news/b", 4), gap({ "/news/*": { after: 40, before: 61 } })]);
  assert.deepEqual(got.data, ["/news/a 3", "/news/b 4"]);
  world.socket.receive([message("/news/a", 6), message("/news/a", 7)]);
  assert.deepEqual(got.data, ["/news/a 3", "/news/b 4", "/news/a 7"]);
});

test("a channel is followed beside a pattern that does not have it, and after one that has it was left", async () => {
  const [news, one] = [recorder(), recorder()];
  const { world, followed: pattern, bus } = await started({}, (bus) => {
    bus.subscribe("/newsletter", one, 0);
    return bus.subscribe("/news/*", news, 0);
  });
  world.socket.receive([message("/newsletter", 1), message("/news/a", 2)]);
  pattern.unsubscribe();
  bus.subscribe("/news/a", one, 2);
  await world.advance(300);
  assert.deepEqual(world.socket.sent, [{ unsubscribe: ["/news/*"] }, { subscribe: { "/news/a": 2 } }]);
  world.socket.receive([message("/news/a", 3), message("/news/b", 9)]);
  assert.deepEqual([news.data, one.data], [["/news/a 2"], ["/newsletter 1", "/news/a 3"]]);
});
