// Settings are checked where they are set, and a wrong one changes nothing.
import assert from "node:assert/strict";
import test from "node:test";
import { World, recorder } from "./fakes.js";

const WRONG = {
  transports: ["websocket", ["websockets"], null, [1]],
  callbackInterval: [Infinity, NaN, -1, "15s", null, 2 ** 31],
  minPollInterval: [-1, "100"], maxPollInterval: [Infinity], heartbeatTimeout: [NaN], firstChunkTimeout: [{}],
  baseUrl: [null, 7], headers: [null, "X: 1"], grants: ["token", null, [7], { a: 1 }],
  onStateChange: ["fn", {}], onGap: [7], shouldLongPollCallback: [true],
};

for (const [name, values] of Object.entries(WRONG))
  test(`${name} takes only what fits, by start, as a property and at the making of a bus`, () => {
    for (const value of values) {
      const bus = new World().bus();
      const before = bus[name];
      assert.throws(() => { bus[name] = value; }, new RegExp(`^TypeError: MessageBus: bad ${name}: `));
      assert.throws(() => bus.start({ [name]: value }), TypeError);
      assert.throws(() => bus.createMessageBus({ [name]: value }), TypeError);
      assert.deepEqual([bus[name], bus.state], [before, "stopped"]);
    }
  });

test("of several settings none is set where one is wrong, or unknown", () => {
  const bus = new World().bus();
  assert.throws(() => bus.start({ callbackInterval: 5000, transports: ["pigeon"] }), TypeError);
  assert.throws(() => bus.start({ callbackInterval: 5000, callbackIntervall: 1 }), /bad callbackIntervall/);
  assert.throws(() => bus.start({ toString: 1 }), TypeError);
  assert.deepEqual([bus.callbackInterval, bus.state], [15000, "stopped"]);
});

test("what is right is taken, null for callbacks, and any value for yes and no as with the original", () => {
  const bus = new World().bus();
  bus.onStateChange = bus.onGap = bus.shouldLongPollCallback = null;
  bus.onGap = undefined;
  bus.transports = Object.freeze(["polling"]);
  bus.grants = () => [];
  bus.headers = async () => ({});
  bus.enableLongPolling = 0;
  bus.minPollInterval = 0;
  bus.stop();
});

test("headers can be added to, and two buses share nothing", () => {
  const [one, other] = [new World().bus(), new World().bus()];
  one.headers["X-CSRF"] = "1";
  one.grants.push("a");
  one.transports.pop();
  assert.deepEqual([other.headers, other.grants, other.transports.length], [{}, [], 5]);
});

test("on gives as many listeners as one likes, each with its undo, and the single slots stay", async () => {
  const world = new World();
  const slot = recorder(), [first, second] = [recorder(), recorder()];
  const bus = world.bus({ transports: ["polling"], onStateChange: slot });
  const undo = bus.on("state", first);
  bus.on("state", second);
  bus.on("state", second);
  bus.on("state", () => { throw new Error("mine"); });
  bus.subscribe("/chat", () => {});
  bus.start();
  undo();
  undo();
  await world.advance(10);
  assert.deepEqual([slot.data, first.data, second.data], [["connecting", "connected"], ["connecting"], ["connecting", "connecting", "connected", "connected"]]);
  for (const event of ["states", "toString", undefined]) assert.throws(() => bus.on(event, () => {}), /bad event/);
  assert.throws(() => bus.on("gap", "fn"), TypeError);
});

test("debug tells what goes on, with time, attempt and transport; without it the console is quiet", async () => {
  const world = new World();
  const bus = world.bus();
  bus.subscribe("/chat", () => {});
  bus.start();
  await world.advance(10);
  assert.deepEqual(world.log, []);
  bus.debug = true;
  world.socket.break();
  await world.advance(5000);
  const text = world.log.map((line) => line.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" "));
  assert.match(text.join("\n"), /log MessageBus: [\d-]+T[\d:]+\.\d{3}Z #1 .*websocket.*closed: 1006/);
  assert.match(text.join("\n"), /#\d+ connected websocket/);
});

test("diagnostics has what a report needs, and no token", async () => {
  const world = new World();
  const bus = world.bus({ grants: ["secret-token"] });
  bus.subscribe("/chat", () => {}, 5);
  bus.start();
  await world.advance(10);
  world.socket.break();
  const told = bus.diagnostics();
  for (const name of ["version", "status", "state", "transport", "trying", "attempts", "failures", "lastProblem", "nextAttempt", "epoch", "queued", "channels", "refused", "left", "clientId"])
    assert.ok(name in told, name);
  assert.match(told.version, /^\d+\.\d+\.\d+$/);
  assert.match(told.lastProblem.message, /closed/);
  assert.ok(!JSON.stringify(told).includes("secret-token"));
});
