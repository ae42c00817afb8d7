// Who the client is, on every transport alike, and what it says where it is not let in.
import assert from "node:assert/strict";
import test from "node:test";
import { World, message, recorder } from "./fakes.js";

const MINUTE = 60_000;
const ALL = ["websocket", "eventsource", "streaming", "long-polling", "polling"];
const POLLS = ["streaming", "long-polling", "polling"];

async function using(transports, { settings = {}, ms = 1000, world = new World(), behave = {} } = {}) {
  Object.assign(world.behave, behave);
  const bus = world.bus({ transports: [transports].flat(), ...settings });
  const chat = recorder();
  bus.subscribe("/chat", chat, 5);
  bus.start();
  await world.advance(ms);
  return { world, bus, chat };
}

test("cookies go with every request of every transport, unless withCredentials is false", async () => {
  for (const withCredentials of [true, false]) {
    const settings = { withCredentials, baseUrl: "https://bus.test/" };
    const { world } = await using("eventsource", { settings });
    assert.equal(world.source.options.withCredentials, withCredentials);
    for (const name of POLLS) {
      const { world, bus } = await using(name, { settings });
      assert.equal(world.poll.credentials, withCredentials ? "include" : "same-origin", name);
      bus.stop();
    }
  }
  assert.equal(new World().bus().withCredentials, true);
});

test("a refusal of the client is told with status, code and url, as a person's matter", async () => {
  for (const [status, text, code] of [
    [401, "<h1>Unauthorized</h1>", undefined],
    [403, '{"error": {"code": "forbidden", "message": "not you"}}', "forbidden"],
    [400, '{"error": {"code": "malformed", "message": "what?"}}', "malformed"],
    [415, "", undefined],
  ]) {
    const world = new World();
    world.answers.push({ status, text });
    const { bus } = await using("polling", { world });
    const [state, info] = world.states.at(-1);
    assert.deepEqual([state, info.status, info.code, info.retry], ["refused", status, code, false]);
    assert.ok("url" in info && info.message && info.delay >= 180_000);
    await world.advance(2 * MINUTE);
    assert.equal(world.polls.length, 1);
    bus.stop();
  }
});

test("what time mends is told so", async () => {
  for (const [status, retry] of [[429, true], [503, true]]) {
    const world = new World();
    world.answers.push({ status, headers: { "Retry-After": "20" } });
    await using("polling", { world, ms: 100 });
    const [state, info] = world.states.at(-1);
    assert.deepEqual([state, info.status, info.retry, info.delay], ["connecting", status, retry, 20_000]);
  }
});

test("a login page in place of a batch is told as what it is", async () => {
  const world = new World();
  const { fetch } = world;
  world.fetch = async (...args) => {
    const response = await fetch(...args);
    Object.defineProperties(response, { redirected: { value: true }, url: { value: "http://page.test/login?next=x" } });
    return response;
  };
  world.answers.push({ status: 200, text: "<html>Log in</html>" });
  const { bus, chat } = await using("polling", { world });
  const [state, info] = world.states.at(-1);
  assert.deepEqual([state, info.code, info.url, info.retry], ["refused", "redirected", "http://page.test/login?next=x", false]);
  assert.match(info.message, /^http:\/\/page\.test\/login/);
  assert.deepEqual([chat.got, bus.state], [[], "refused"]);
});

test("a page in place of a batch is no connection, and is asked again before long", async () => {
  for (const transport of POLLS) {
    const world = new World();
    world.answers.push({ status: 200, text: "<html>You are offline</html>" });
    world.behave.streaming = world.behave["long-polling"] = "silent";
    const { bus } = await using([transport], { world, ms: 10 });
    if (transport === "streaming") world.poll.answer("<html>You are offline</html>");
    await world.advance(10);
    const [state, info] = world.states.at(-1);
    assert.deepEqual([state, info.code, info.retry], ["connecting", "not_a_batch", false], transport);
    world.behave.streaming = "open";
    await world.advance(8000);
    assert.equal(bus.state, "connected", transport);
    bus.stop();
  }
});

test("something before the bus that refuses POST does not keep EventSource away", async () => {
  const world = new World();
  world.answers.push({ status: 400, text: "<h1>Bad Request</h1><p>The CSRF token is missing.</p>" });
  const { bus } = await using(ALL, { world, behave: { websocket: "fail" } });
  assert.deepEqual([bus.transport, bus.state], ["eventsource", "connected"]);
  const told = world.states.find(([, { status }]) => status === 400)[1];
  assert.match(told.message, /CSRF token is missing/);
});

test("retry and start go on at once after a refusal, and end a wait that the server asked for", async () => {
  for (const act of ["retry", "start"])
    for (const answer of [{ status: 401 }, { status: 403 }, { status: 429 }, { status: 503, headers: { "Retry-After": "600" } }]) {
      const world = new World();
      world.answers.push(answer);
      const { bus } = await using("polling", { world });
      assert.equal(world.polls.length, 1);
      bus[act]();
      await world.advance(10);
      assert.deepEqual([world.polls.length, bus.state], [2, "connected"], `${act} after ${answer.status}`);
      bus.stop();
    }
});

test("other grants end a refusal, and not a wait that the server asked for", async () => {
  for (const [answer, polls] of [[{ status: 403 }, 2], [{ status: 429 }, 1], [{ status: 503, headers: { "Retry-After": "60" } }, 1]]) {
    const world = new World();
    world.answers.push(answer);
    const { bus } = await using("polling", { world });
    for (let token = 0; token < 20; token++) {
      bus.grants = [`${token}`];
      await world.advance(100);
    }
    assert.equal(world.polls.length, polls, `${answer.status}`);
    bus.stop();
  }
});

test("a page that is shown again asks again: the person may have logged in elsewhere", async () => {
  const world = new World();
  world.answers.push({ status: 401 });
  const { bus } = await using("polling", { world });
  world.show("hidden");
  await world.advance(10_000);
  world.show("visible");
  await world.advance(10);
  assert.equal(bus.state, "connected");
});

test("headers and grants may be functions, also slow ones, and are asked before each connection", async () => {
  for (const wait of [0, 500]) {
    let count = 0;
    const later = (value) => (wait ? new Promise((resolve) => world.setTimeout(() => resolve(value), wait)) : value);
    const world = new World();
    const settings = { headers: () => later({ Authorization: `Bearer ${++count}` }), grants: () => later(["a", "b"]) };
    const { bus } = await using(ALL, { world, settings, ms: 2000 });
    // Browsers send no headers with the first two.
    assert.deepEqual([bus.transport, world.poll.headers.Authorization, world.poll.form.__grants], ["streaming", "Bearer 1", "a,b"]);
    world.poll.end();
    await world.advance(2000);
    assert.equal(world.poll.headers.Authorization, "Bearer 2");
    bus.stop();
  }
});

test("credentials that are refused are asked for once more at once, and then a person is asked", async () => {
  for (const status of [401, 403]) {
    let token = 0;
    const world = new World();
    world.answers.push({ status }, [], [], { status }, { status }, []);
    const { bus } = await using("polling", { world, settings: { headers: () => ({ Authorization: `${++token}` }), callbackInterval: 1000 }, ms: 100 });
    assert.deepEqual([world.polls.length, bus.state, token], [2, "connected", 2]);
    await world.advance(2500);
    assert.equal(bus.state, "refused");
    bus.stop();
  }
});

test("a function that throws or never answers is a failure that is told, and tried again", async () => {
  for (const grants of [() => { throw new Error("no session"); }, () => Promise.reject(new Error("no session")), () => new Promise(() => {})]) {
    const { world, bus } = await using("polling", { settings: { grants }, ms: 11_000 });
    assert.equal(world.polls.length, 0);
    assert.match(world.states.at(-1)[1].message, /no session|timeout/);
    bus.grants = ["good"];
    await world.advance(40_000); // what was asked for is waited for first
    assert.equal(bus.state, "connected");
    bus.stop();
  }
});

test("a polling probe that hears 401 while a websocket fails tells the page", async () => {
  const world = new World();
  world.answers.push({ status: 401, text: "log in" });
  const { bus } = await using(["websocket", "polling"], { world, behave: { websocket: "fail" } });
  assert.deepEqual([bus.state, world.states.at(-1)[1].status], ["refused", 401]);
  void message;
});
