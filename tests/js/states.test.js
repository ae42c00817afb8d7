// The table of states, edge by edge: each cell is walked with a bus and a server that does what the event says.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { TRANSITIONS, nextState } from "../../static/js/src/states.js";
import { World } from "./fakes.js";

const ask = async (world) => {
  for (let step = 0; step < 20 && (!world.poll || world.poll.done || world.poll.aborted); step++) await world.advance(1000);
};

// What the server says to the poll that is under way, or to the next.
async function say(world, answer) {
  await ask(world);
  const { poll } = world;
  poll.done = true;
  answer(poll);
  await world.advance(0);
}

const EVENTS = {
  start: (world, bus) => bus.start(),
  follow: (world, bus) => void bus.subscribe("/more", () => {}),
  rest: (world, bus) => (bus.unsubscribe("*"), world.advance(200)),
  open: (world) => say(world, (poll) => poll.answer([])),
  fail: (world) => say(world, (poll) => poll.fail()),
  refuse: (world) => say(world, (poll) => poll.answer("no", { status: 403 })),
  again: (world, bus) => bus.retry(),
  offline: (world) => world.window.emit("offline"),
  online: (world) => world.window.emit("online"),
  stop: (world, bus) => bus.stop(),
};

// How to come to a state.
const PATHS = {
  stopped: ["rest"], idle: ["rest", "start"], connecting: ["start"], connected: ["start", "open"],
  reconnecting: ["start", "open", "fail"], offline: ["start", "offline"], refused: ["start", "refuse"],
};

async function walk(...events) {
  const world = new World();
  world.behave.polling = "silent";
  const bus = world.bus({ transports: ["polling"], callbackInterval: 1000, backgroundCallbackInterval: 1000, maxPollInterval: 5000 });
  bus.subscribe("/chat", () => {});
  for (const event of events) {
    await EVENTS[event](world, bus);
    await world.advance(1);
  }
  return { world, bus };
}

for (const [state, row] of Object.entries(TRANSITIONS))
  for (const [event, expected] of Object.entries(row)) {
    const path = PATHS[state];
    const next = nextState(state, event, path.includes("open"));
    test(`${state}, ${event}: ${expected}${next === expected ? "" : ` (${next} here)`}`, async () => {
      const { world, bus } = await walk(...path);
      assert.equal(bus.state, state);
      await EVENTS[event](world, bus);
      await world.advance(1);
      assert.equal(bus.state, next);
      bus.stop();
      assert.equal(bus.state, "stopped");
    });
  }

for (const [state, event] of [
  ["stopped", "again"], ["stopped", "offline"], ["stopped", "online"], ["stopped", "stop"], ["stopped", "follow"],
  ["idle", "offline"], ["idle", "online"], ["idle", "again"], ["connected", "again"], ["connected", "online"],
  ["connecting", "follow"], ["connected", "follow"], ["refused", "online"],
])
  test(`${state}, ${event}: nothing changes`, async () => {
    const { world, bus } = await walk(...PATHS[state]);
    EVENTS[event](world, bus);
    assert.equal(bus.state, state);
    await world.advance(0);
  });

test("once connected, trying is reconnecting until the bus is stopped", async () => {
  const { bus, world } = await walk("start", "open", "offline", "online");
  assert.equal(bus.state, "reconnecting");
  bus.stop();
  bus.start();
  assert.equal(bus.state, "connecting");
  await world.advance(1);
});

test("every state can be left, and every row ends at a state of the table", () => {
  for (const row of Object.values(TRANSITIONS)) {
    assert.ok(Object.keys(row).length);
    for (const next of Object.values(row)) assert.ok(next in TRANSITIONS, next);
  }
});

test("the page is told of each change once, with the transport", async () => {
  const { world } = await walk("start", "open", "fail", "open", "stop");
  assert.deepEqual(world.stateNames.filter((name, index, all) => name !== all[index - 1]), ["connecting", "connected", "reconnecting", "connected", "stopped"]);
});

test("the documentation has every state and every event", () => {
  const text = readFileSync(new URL("../../docs/javascript.md", import.meta.url), "utf8");
  for (const [state, row] of Object.entries(TRANSITIONS))
    for (const name of [state, ...Object.keys(row)]) assert.ok(text.includes(`\`${name}\``), name);
});
