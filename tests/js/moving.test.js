// The server is to end: the next connection is opened beside the present one, and takes over with its first batch.
import assert from "node:assert/strict";
import test from "node:test";
import { World, message, recorder, status } from "./fakes.js";

const MOVING = [status({ __moving: 10_000 })];

async function connected(transport, position = 5) {
  const world = new World();
  const bus = world.bus({ transports: [transport, "polling"] });
  const chat = recorder();
  bus.subscribe("/chat", chat, position);
  bus.start();
  await world.advance(100);
  assert.equal(bus.transport, transport);
  const all = () => ({ websocket: world.sockets, eventsource: world.sources, streaming: world.polls })[transport];
  const give = (one, batch) => (transport === "streaming" ? one.send(batch) : one.receive(batch));
  const isClosed = (one) => one.closed ?? one.aborted;
  return { world, bus, chat, all, give, isClosed };
}

for (const transport of ["websocket", "eventsource", "streaming"]) {
  test(`${transport}: the next connection takes over with its first batch, and nothing is lost or doubled`, async () => {
    const { world, bus, chat, all, give, isClosed } = await connected(transport);
    const [old] = all();
    give(old, [message("/chat", 6)]);
    give(old, MOVING);
    await world.advance(4900); // Math.random is 0.5
    assert.deepEqual([all().length, isClosed(old)], [1, false]);
    world.behave[transport] = "silent";
    await world.advance(200);
    const next = all()[1];
    assert.equal((next.query || next.form)["/chat"], "6");
    give(old, [message("/chat", 7)]); // the old one is read meanwhile
    await world.advance(1);
    assert.deepEqual([chat.data.at(-1), isClosed(old)], ["/chat 7", false]);
    give(next, [message("/chat", 7), message("/chat", 8)]);
    await world.advance(1);
    assert.deepEqual([chat.data, isClosed(old), isClosed(next)], [["/chat 6", "/chat 7", "/chat 8"], true, false]);
    assert.deepEqual([world.stateNames, bus.transport], [["connecting", "connected"], transport]);
    bus.stop();
  });

  test(`${transport}: where the next one does not open, the old one stays and it is tried again`, async () => {
    const { world, bus, all, give, isClosed } = await connected(transport);
    const [old] = all();
    world.behave[transport] = "fail";
    give(old, MOVING);
    await world.advance(5000 + 500 + 1000 + 2000 + 4000 + 500);
    assert.deepEqual([all().length, isClosed(old), bus.state], [6, false, "connected"]);
    world.behave[transport] = "open";
    await world.advance(4000);
    assert.deepEqual([all().length, isClosed(old), world.stateNames], [7, true, ["connecting", "connected"]]);
    bus.stop();
  });
}

test("a second order to move changes nothing, and the next connection may be moved again", async () => {
  const { world, bus, all, give } = await connected("websocket");
  give(all()[0], MOVING);
  await world.advance(3000);
  give(all()[0], MOVING);
  await world.advance(2100);
  assert.equal(all().length, 2);
  give(all()[1], MOVING);
  await world.advance(5100);
  assert.deepEqual([all().length, bus.state], [3, "connected"]);
  bus.stop();
});

test("what is followed while the next connection opens is followed on it", async () => {
  const { world, bus, all, give } = await connected("websocket");
  give(all()[0], MOVING);
  world.behave.websocket = "silent";
  await world.advance(5100);
  bus.subscribe("/more", () => {}, 3);
  await world.advance(200);
  all()[1].onopen({});
  give(all()[1], []);
  await world.advance(200);
  assert.deepEqual(all()[1].sent, [{ subscribe: { "/more": 3 } }]);
  bus.stop();
});

test("it waits until the old connection has said where its channels stand, and answered", async () => {
  const { world, bus, all, give } = await connected("websocket", -1);
  give(all()[0], MOVING);
  await world.advance(20_000);
  assert.equal(all().length, 1);
  give(all()[0], [status({ "/chat": 9 })]);
  world.answerCommands = null;
  bus.subscribe("/more", () => {}, 3);
  await world.advance(9000);
  assert.equal(all().length, 1);
  give(all()[0], { id: all()[0].frames.at(-1).id, ok: {} });
  await world.advance(1000);
  assert.deepEqual([all().length, all()[1].query["/chat"]], [2, "9"]);
  bus.stop();
});

test("nothing is left of it after stop()", async () => {
  const { world, bus, all, give } = await connected("websocket");
  give(all()[0], MOVING);
  bus.stop();
  assert.equal(world.timers.size, 0);
  await world.advance(10_000);
  assert.equal(all().length, 1);
});
