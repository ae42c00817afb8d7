// What a page says: over an open WebSocket, else by requests; in order, and stored once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { World, settle } from "./fakes.js";

const KEY = /^\d+-\d+-\d+-\d+$/;

async function connected(settings = {}) {
  const world = new World();
  const bus = world.bus(settings);
  bus.subscribe("/chat", () => {});
  bus.start();
  await world.advance(1000);
  return { world, bus };
}
const onPolls = (settings) => connected({ transports: ["polling"], baseUrl: "/app/", ...settings });

/** Publishes one after the other, and waits until they have been sent. */
async function publishAll(bus, ...all) {
  const promises = all.map((data) => bus.publish("/chat", data));
  for (const promise of promises) promise.catch(() => {}); // it is looked at later
  await settle();
  return promises;
}

test("publish resolves with what the server gave, or rejects with its code", async () => {
  const { world, bus } = await connected();
  const [good, bad] = await publishAll(bus, "hi", 1);
  const [{ publish, id }] = world.socket.sent;
  assert.deepEqual([publish.channel, publish.data, id], ["/chat", "hi", 1]);
  assert.match(publish.key, KEY);
  world.socket.receive({ id: 1, ok: { message_id: 6 } });
  world.socket.receive({ id: 2, error: { code: "too_many_publishes", message: "no", field: "max", retry_after: 3 } });
  assert.deepEqual(await good, { message_id: 6 });
  await assert.rejects(bad, { code: "too_many_publishes", message: "no", field: "max", retry_after: 3 });
});

test("without a WebSocket each command is a request, with the headers of the page", async () => {
  const { world, bus } = await onPolls({ headers: () => ({ "X-CSRFToken": "t" }), withCredentials: true });
  const [sent] = await publishAll(bus, "hi");
  const [{ url, body, headers, credentials, answer }] = world.posted;
  assert.equal(url, `/app/message-bus/${bus.clientId}/publish`);
  assert.deepEqual([body.channel, body.data, credentials], ["/chat", "hi", "include"]);
  assert.deepEqual(headers, { "Content-Type": "application/json", "X-CSRFToken": "t" });
  answer({ ok: { message_id: 7 } });
  assert.deepEqual(await sent, { message_id: 7 });
});

test("a page that has not started can publish", async () => {
  const world = new World(), bus = world.bus();
  const [sent] = await publishAll(bus, 1);
  world.posted[0].answer({ ok: { message_id: null } });
  assert.deepEqual(await sent, { message_id: null });
});

test("requests go one after the other, and a refused one holds up nobody", async () => {
  const { world, bus } = await onPolls();
  const [first, second] = await publishAll(bus, 1, 2);
  assert.equal(world.posted.length, 1);
  world.posted[0].answer({ error: { code: "forbidden", message: "no" } }, 403);
  await assert.rejects(first, { code: "forbidden" });
  await settle();
  assert.equal(world.posted[1].body.data, 2);
  world.posted[1].answer({ ok: { message_id: 8 } });
  assert.deepEqual(await second, { message_id: 8 });
});

test("a publish whose answer is lost is sent again with its key, and the next one waits for it", async () => {
  const { world, bus } = await onPolls();
  const [first, second] = await publishAll(bus, 1, 2);
  world.posted[0].fail();
  await world.advance(1000);
  world.posted[1].answer("<h1>Bad gateway</h1>", 502);
  await world.advance(1000);
  const keys = world.posted.map(({ body }) => body.key);
  assert.deepEqual([keys.length, new Set(keys).size], [3, 1]);
  world.posted[2].answer({ ok: { message_id: 5 } });
  assert.deepEqual(await first, { message_id: 5 });
  await settle();
  assert.equal(world.posted[3].body.data, 2);
  world.posted[3].answer({ ok: { message_id: 6 } });
  await second;
});

test("a publish that comes while the store is away is sent again, until there is no time left", async () => {
  const { world, bus } = await onPolls();
  const away = { error: { code: "unavailable", message: "no store", retry_after: 2 } };
  const [first] = await publishAll(bus, 1);
  world.posted[0].answer(away, 503);
  await world.advance(1000);
  world.posted[1].answer({ ok: { message_id: 5 } });
  assert.deepEqual(await first, { message_id: 5 });
  assert.equal(new Set(world.posted.map(({ body }) => body.key)).size, 1);
  const late = assert.rejects(bus.publish("/chat", 2, { timeout: 600 }), { code: "unavailable" });
  await settle();
  world.posted[2].answer(away, 503);
  await world.advance(500);
  world.posted[3].answer(away, 503);
  await late;
});

test("what was under way on a WebSocket that breaks goes on by other means, in its order", async () => {
  const { world, bus } = await connected();
  const [first, second] = await publishAll(bus, 1, 2);
  const sent = world.socket.sent.map(({ publish }) => publish.key);
  world.behave.websocket = "fail";
  world.socket.break();
  await settle();
  const [third] = await publishAll(bus, 3);
  assert.deepEqual(world.posted.map(({ body }) => [body.data, body.key]), [[1, sent[0]]]);
  world.posted[0].answer({ ok: { message_id: 1 } });
  await first;
  await settle();
  world.posted[1].answer({ ok: { message_id: 2 } });
  await second;
  await settle();
  world.posted[2].answer({ ok: { message_id: 3 } });
  assert.deepEqual(await third, { message_id: 3 });
});

test("an answer that does not come ends in a time-out, on either way", async () => {
  for (const settings of [{}, { transports: ["polling"] }]) {
    const { world, bus } = await connected(settings);
    const late = assert.rejects(bus.publish("/chat", 1, { timeout: 2000 }), { code: /timeout|disconnected/ });
    await world.advance(2600);
    await late;
    assert.equal(bus.state, "connected");
  }
});

test("what has waited too long for those before it ends in a time-out, too", async () => {
  const { world, bus } = await onPolls();
  const [first] = await publishAll(bus, 1), second = bus.publish("/chat", 2, { timeout: 5000 });
  const ends = [assert.rejects(first, { code: "disconnected" }), assert.rejects(second, { code: "timeout" })];
  await world.advance(10_600); // no answer comes
  await Promise.all(ends);
  assert.equal(world.posted.length, 1);
});

test("a part of a millisecond, and a time without end, are times as well", async () => {
  const { world, bus } = await onPolls();
  for (const timeout of [0.5, Infinity]) {
    const sent = bus.publish("/chat", 1, { timeout });
    await settle();
    world.posted.at(-1).answer({ ok: { message_id: 1 } });
    assert.deepEqual(await sent, { message_id: 1 });
  }
});

test("what is refused in front of the bus is told at once, with its status", async () => {
  const { world, bus } = await onPolls();
  for (const [answer, status, more, expected] of [
    ["<h1>The CSRF token is missing.</h1>", 400, {}, { code: "not_an_answer", status: 400, message: /^400 .*CSRF token/ }],
    [{ error: "The CSRF token is missing." }, 400, {}, { code: "not_an_answer", status: 400 }],
    ["<h1>Log in</h1>", 200, { redirected: true, url: "/login" }, { code: "redirected", url: "/login" }],
  ]) {
    const before = world.posted.length, [sent] = await publishAll(bus, 1);
    world.posted.at(-1).answer(answer, status, more);
    await assert.rejects(sent, expected);
    await world.advance(2000);
    assert.equal(world.posted.length, before + 1);
  }
});

test("an answer that is none of the bus's is not taken for success", async () => {
  const { world, bus } = await onPolls();
  const [sent] = await publishAll(bus, 1);
  for (const answer of [{ message: "ok" }, [], null, 7]) {
    world.posted.at(-1).answer(answer);
    await world.advance(600);
  }
  world.posted.at(-1).answer({ ok: { message_id: 1 } });
  assert.deepEqual([await sent, world.posted.length], [{ message_id: 1 }, 5]);
});

test("data that is no JSON is an error of its own", async () => {
  for (const settings of [{}, { transports: ["polling"] }]) {
    const { bus } = await connected(settings);
    const loop = {};
    loop.self = loop;
    await assert.rejects(bus.publish("/chat", loop), TypeError);
  }
});

test("what is transient is sent once, with its key, and not again where the answer is lost", async () => {
  const { world, bus } = await onPolls();
  const lost = bus.publish("/chat", "typing", { transient: true, key: "me" });
  lost.catch(() => {});
  await settle();
  assert.deepEqual(world.posted[0].body, { channel: "/chat", data: "typing", transient: true, key: "me" });
  world.posted[0].fail();
  await assert.rejects(lost, { code: "disconnected" });
  await world.advance(5000);
  assert.equal(world.posted.length, 1);
});
