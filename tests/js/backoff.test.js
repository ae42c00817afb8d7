// When the client comes back: delays, what the server asks for, and what wakes it.
import assert from "node:assert/strict";
import test from "node:test";
import { World, recorder } from "./fakes.js";

const MINUTE = 60_000;

async function polling(settings = {}, world = new World()) {
  const bus = world.bus({ transports: ["polling"], ...settings });
  bus.subscribe("/chat", recorder(), 5);
  bus.start();
  await world.advance(10);
  return { world, bus };
}

async function websocket(settings = {}) {
  const { world, bus } = await polling({ transports: ["websocket"], ...settings });
  await world.advance(10_000);
  return { world, bus };
}

// Everything fails from now on.
function die(world) {
  for (const name of Object.keys(world.behave)) world.behave[name] = "fail";
  world.socket?.break();
}

test("delays are any time up to a bound that doubles from a second to two, and then grows with the outage", async () => {
  const { world } = await websocket({ maxPollInterval: 10_000 });
  die(world);
  await world.advance(10 * MINUTE);
  const delays = world.states.filter(([, info]) => info.delay).map(([, info]) => info.delay);
  assert.deepEqual(delays.slice(0, 4), [550, 1050, 1050, 1050]); // random() is 0.5
  assert.deepEqual(delays.slice(-2), [5050, 5050]);
});

const chance = (random) => ({ Math: Object.assign(Object.create(Math), { random }) });

test("no two clients of a thousand come back in the same millisecond for a bound's sake", async () => {
  for (const visibility of ["visible", "hidden"]) {
    const delays = new Set();
    for (let client = 0; client < 200; client++) {
      const world = new World();
      const onStateChange = (state, { delay }) => delay && delays.add(delay);
      const bus = world.createMessageBus({ transports: ["websocket"], onStateChange }, chance(() => client / 200));
      bus.subscribe("/chat", () => {});
      bus.start();
      await world.advance(10);
      world.show(visibility);
      world.socket.break();
      bus.stop();
    }
    assert.ok(delays.size >= 198, `${visibility}: ${delays.size} different ones`);
  }
});

test("delays are spread over all of their length, and not below minPollInterval", async () => {
  for (const [random, expected] of [[0, 100], [0.25, 325], [1, 1000]]) {
    const world = new World();
    const delays = [];
    await polling({}, world);
    const onStateChange = (state, { delay }) => delay && delays.push(delay);
    const bus = world.createMessageBus({ transports: ["polling"], onStateChange }, chance(() => random));
    world.behave.polling = "fail";
    bus.subscribe("/chat", () => {});
    bus.start();
    await world.advance(10);
    assert.deepEqual(delays, [expected]);
    bus.stop();
  }
});

test("after an outage of up to half a minute most clients are back within a second and a half", async () => {
  for (const transports of [undefined, ["websocket"], ["eventsource", "polling"]])
    for (const outage of [1000, 3000, 10_000, 30_000]) {
      const times = [];
      for (let client = 0; client < 41; client++) {
        const world = new World();
        let state = client + 1; // a generator of its own, so that the test is the same every time
        const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
        const bus = world.createMessageBus(transports && { transports }, chance(random));
        bus.subscribe("/chat", () => {}, 5);
        bus.start();
        await world.advance(20_000);
        die(world);
        world.source?.break();
        await world.advance(outage);
        for (const name of Object.keys(world.behave)) world.behave[name] = "open";
        const back = world.time;
        const first = () => [...world.sockets, ...world.sources, ...world.polls].filter(({ at }) => at >= back)[0];
        for (let step = 0; step < 100 && !first(); step++) await world.advance(100);
        times.push(first().at - back);
        bus.stop();
      }
      const median = times.sort((a, b) => a - b)[20];
      assert.ok(median <= 1500, `${transports}, ${outage} ms: ${median} ms`);
    }
});

test("a server that is down is asked once for each delay, whatever the transports", async () => {
  const world = new World();
  const bus = world.bus();
  bus.subscribe("/chat", () => {}, 5);
  bus.start();
  await world.advance(10_000);
  die(world);
  await world.advance(10 * MINUTE);
  const asked = world.sockets.length + world.sources.length + world.polls.length;
  assert.ok(asked < 140, `asked ${asked} times in ten minutes`);
});

test("subscribing while the server is down does not end the wait", async () => {
  const { world, bus } = await websocket();
  die(world);
  await world.advance(MINUTE);
  const before = world.sockets.length;
  bus.subscribe("/more", () => {});
  await world.advance(100);
  assert.equal(world.sockets.length, before);
});

test("429 is honoured: 15 seconds at least, longer where Retry-After says so in seconds or as a date", async () => {
  const date = (ms) => new Date(ms).toUTCString();
  for (const [header, seconds] of [[undefined, 15], ["3", 15], ["40", 40], [(world) => date(world.time + 50_000), 50]]) {
    const world = new World();
    const retryAfter = typeof header === "function" ? header(world) : header;
    world.answers.push({ status: 429, headers: retryAfter ? { "Retry-After": retryAfter } : {} });
    await polling({}, world);
    world.window.emit("online");
    world.show("visible");
    await world.advance((seconds - 1) * 1000 - 10);
    assert.equal(world.polls.length, 1, `${retryAfter}`);
    await world.advance(1100);
    assert.equal(world.polls.length, 2, `${retryAfter}`);
  }
});

test("503 with Retry-After waits as long as it says", async () => {
  const world = new World();
  world.answers.push({ status: 503, headers: { "Retry-After": "2" } });
  await polling({}, world);
  await world.advance(1900);
  assert.equal(world.polls.length, 1);
  await world.advance(200);
  assert.equal(world.polls.length, 2);
});

test("403 is shown as a warning with the server's words, and does not spin", async () => {
  const world = new World();
  world.answers.push({ status: 403, text: '{"error": "not /chat"}' });
  const { bus } = await polling({ maxPollInterval: 180_000 }, world);
  assert.equal(world.log[0][0], "warn");
  assert.match(JSON.stringify(world.log[0]), /\/chat.*not/);
  const [state, info] = world.states.at(-1);
  assert.deepEqual([state, info.status, info.retry], ["refused", 403, false]);
  await world.advance(170_000);
  assert.equal(world.polls.length, 1);
  await world.advance(20_000);
  assert.deepEqual([world.polls.length, bus.state], [2, "connected"]);
});

test("403 behind a websocket comes to light by a poll", async () => {
  const world = new World();
  world.behave.websocket = "fail";
  world.answers.push({ status: 403, text: "not you" });
  const { bus } = await polling({ transports: ["websocket", "polling"] }, world);
  await world.advance(MINUTE);
  assert.deepEqual([world.sockets.length, world.polls.length, bus.state], [1, 1, "refused"]);
  assert.match(JSON.stringify(world.log), /not you/);
});

test("leaving a refused channel asks again at once", async () => {
  const world = new World();
  world.answers.push({ status: 403 });
  const { bus } = await polling({}, world);
  bus.subscribe("/allowed", () => {});
  bus.unsubscribe("/chat");
  await world.advance(100);
  assert.deepEqual([world.polls.length, Object.keys(world.poll.form)], [2, ["/allowed", "__seq", "__epoch"]]);
});

test("400 and 413 are shown with the server's words, and do not spin", async () => {
  for (const status of [400, 413]) {
    const world = new World();
    world.answers.push({ status, text: '{"error": "max_channels allows 200"}' });
    await polling({}, world);
    assert.equal(world.log[0][0], "warn");
    assert.match(JSON.stringify(world.log[0]), /max_channels allows 200/);
    await world.advance(170_000);
    assert.equal(world.polls.length, 1);
  }
});

test("500 and 404 are ordinary failures", async () => {
  for (const status of [500, 404]) {
    const world = new World();
    world.answers.push({ status });
    const { bus } = await polling({}, world);
    await world.advance(600);
    assert.deepEqual([world.polls.length, bus.state, world.log], [2, "connected", []]);
  }
});

test("online, or the page being shown or restored, ends a wait at once and resets the delays", async () => {
  const wakes = {
    online: (world) => world.window.emit("online"),
    visible: (world) => world.show("visible"),
    pageshow: (world) => world.window.emit("pageshow", { persisted: true }),
    resume: (world) => world.window.emit("resume"),
  };
  for (const [name, wake] of Object.entries(wakes)) {
    const { world, bus } = await websocket();
    die(world);
    await world.advance(5 * MINUTE);
    const before = world.sockets.length;
    world.behave.websocket = "open";
    wake(world);
    await world.advance(10);
    assert.deepEqual([world.sockets.length, bus.state], [before + 1, "connected"], name);
    bus.stop();
  }
});

test("offline is a state in which little is tried, and online ends it", async () => {
  const { world, bus } = await websocket();
  world.behave.websocket = "fail";
  world.window.emit("offline");
  assert.deepEqual([bus.state, world.socket.closed], ["offline", true]);
  await world.advance(50_000);
  assert.deepEqual([world.sockets.length, bus.state], [1, "offline"]);
  await world.advance(20_000);
  assert.deepEqual([world.sockets.length, bus.state], [2, "offline"]);
  world.behave.websocket = "open";
  world.window.emit("online");
  await world.advance(10);
  assert.equal(bus.state, "connected");
});

test("a connection over a network that was changed is not trusted", async () => {
  const { world } = await websocket();
  world.window.emit("online");
  await world.advance(10);
  assert.deepEqual([world.sockets[0].closed, world.sockets.length], [true, 2]);
});

test("after the machine slept, the client connects at once", async () => {
  const { world, bus } = await websocket();
  await world.sleep(20 * MINUTE);
  await world.advance(10);
  assert.deepEqual([world.sockets[0].closed, world.sockets.length, bus.state], [true, 2, "connected"]);
});

test("timers that a hidden tab gets late are no sleep", async () => {
  const { world } = await websocket({ heartbeatTimeout: 65_000 });
  world.show("hidden");
  for (let minute = 0; minute < 10; minute++) {
    world.socket.receive([]);
    await world.sleep(50_000);
  }
  world.show("visible");
  await world.advance(10_000);
  assert.equal(world.sockets.length, 1);
});

test("a tab that is shown after long silence does not wait for the clock", async () => {
  const { world } = await websocket();
  world.show("hidden");
  world.time += 66_000;
  world.show("visible");
  await world.advance(10);
  assert.equal(world.sockets.length, 2);
});

test("in hidden tabs the delays are minHiddenPollInterval at least", async () => {
  const { world } = await websocket({ minHiddenPollInterval: 1500 });
  world.show("hidden");
  world.socket.break();
  await world.advance(1400);
  assert.equal(world.sockets.length, 1);
  await world.advance(200);
  assert.equal(world.sockets.length, 2);
});

test("a page that is put away closes its connection, and opens one when it comes back", async () => {
  const { world, bus } = await websocket();
  world.window.emit("pagehide", { persisted: true });
  assert.equal(world.socket.closed, true);
  await world.advance(MINUTE);
  assert.equal(world.sockets.length, 1);
  world.window.emit("pageshow", { persisted: true });
  await world.advance(10);
  assert.deepEqual([world.sockets.length, bus.state], [2, "connected"]);
});

test("states: connecting, connected, reconnecting, connected, stopped", async () => {
  const { world, bus } = await websocket();
  world.socket.break();
  await world.advance(1000);
  bus.stop();
  assert.deepEqual(world.stateNames, ["connecting", "connected", "reconnecting", "connected", "stopped"]);
  assert.deepEqual(world.states.map(([, { transport }]) => transport), [null, "websocket", "websocket", "websocket", null]);
});
