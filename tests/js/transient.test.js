// Messages that are not kept: they have the id of the last message before them, and move nothing back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { World } from "./fakes.js";

const message = (message_id, data) => ({ channel: "/chat", data, message_id, global_id: message_id });
const transient = (message_id, data) => ({ ...message(message_id, data), transient: true });

async function following(settings) {
  const world = new World(), heard = [];
  const bus = world.bus(settings);
  const subscription = bus.subscribe("/chat", (data) => heard.push(data), 5);
  bus.start();
  await world.advance(1000);
  return { world, bus, heard, subscription };
}

test("each is delivered, however many have the same id, and what follows as well", async () => {
  const { world, heard, subscription } = await following();
  world.socket.receive([transient(5, "t1"), transient(5, "t2"), message(6, "kept"), transient(6, "t3"), message(6, "kept")]);
  assert.deepEqual(heard, ["t1", "t2", "kept", "t3"]);
  assert.equal(subscription.position, 6);
});

test("one from a server that is behind does not move the position back", async () => {
  const { world, bus, heard, subscription } = await following();
  world.socket.receive([message(8, "kept"), transient(6, "late"), message(7, "a duplicate"), transient(-1, "unplaced")]);
  assert.deepEqual(heard, ["kept", "late", "unplaced"]);
  assert.equal(subscription.position, 8);
  assert.equal(bus.diagnostics().channels["/chat"], 8);
});

test("a long poll that brings one asks again at once, from where it was", async () => {
  const { world, heard } = await following({ transports: ["long-polling"] });
  world.poll.answer([transient(5, "typing")]);
  await world.advance(1000);
  assert.deepEqual(heard, ["typing"]);
  assert.equal(world.poll.form["/chat"], "5");
});
