// Channels that are refused by themselves.
import assert from "node:assert/strict";
import test from "node:test";
import { FORBIDDEN, World, message, recorder, refusal, say, started } from "./fakes.js";

const ALL = ["websocket", "eventsource", "streaming", "long-polling", "polling"];
const AWAY = { code: "unavailable", message: "the store is away", retry: true };

for (const name of ALL)
  test(`over ${name}, a channel that is refused takes no other along`, async () => {
    const refusals = [], told = [];
    const world = new World();
    const bus = world.bus({ transports: [name] });
    const [open, secret] = [recorder(), recorder()];
    bus.on("refused", (one) => refusals.push(one));
    bus.subscribe("/open", open, 0);
    bus.subscribe("/secret", secret, { lastId: 0, onRefused: (one) => told.push(one) });
    world.answers.push([refusal({ "/secret": FORBIDDEN }), message("/open", 1)]);
    bus.start();
    await world.advance(10);
    if (!["polling", "long-polling"].includes(name)) say(world, [refusal({ "/secret": FORBIDDEN }), message("/open", 1)]);
    await world.advance(20_000);
    assert.equal((world.sockets.at(-1) || world.sources.at(-1) || world.polls.at(-1)).refusals, "t");
    assert.deepEqual(refusals, [{ channel: "/secret", ...FORBIDDEN }]);
    assert.deepEqual(world.states.filter(([, { channel }]) => channel).map(([, { transport, ...info }]) => info), refusals);
    assert.deepEqual(told, refusals);
    assert.deepEqual([bus.state, open.data, secret.data, world.log], ["connected", ["/open 1"], [], []]);
    // It is not asked for again by the requests that follow.
    bus.subscribe("/more", () => {});
    await world.advance(30_000);
    const later = [...world.sockets.slice(1), ...world.sources.slice(1), ...world.polls.slice(1)];
    assert.ok(later.every((request) => !("/secret" in (request.query || request.form))));
    assert.ok(world.sockets.flatMap(({ sent }) => sent).every(({ subscribe = {} }) => !("/secret" in subscribe)));
    assert.ok(later.length < 12, `${later.length} requests`);
    bus.stop();
  });

test("a refusal that nobody listens to is a warning", async () => {
  const { world } = await started({}, (bus) => void bus.subscribe("/secret", () => {}));
  world.socket.receive([refusal({ "/secret": FORBIDDEN })]);
  assert.match(JSON.stringify(world.log), /warn.*\/secret.*forbidden.*not you/);
});

test("on an open websocket the answer to a subscribe says which channels are refused, and the others are followed", async () => {
  const { world, bus } = await started({}, (bus) => void bus.subscribe("/first", () => {}));
  world.answerCommands = () => ({ refused: { "/secret": FORBIDDEN } });
  const [open, told] = [recorder(), recorder()];
  bus.subscribe("/open", open, 0);
  bus.subscribe("/secret", () => {}, { onRefused: told });
  await world.advance(10);
  assert.deepEqual(world.socket.sent, [{ subscribe: { "/open": 0, "/secret": -1 } }]);
  world.socket.receive([message("/open", 1)]);
  assert.deepEqual([open.data, told.got.length, world.sockets.length], [["/open 1"], 1, 1]);
});

test("what time mends is asked for again when the server says, and else after 30 seconds", async () => {
  for (const [after, least] of [[{ retry_after: 7 }, 7], [{}, 30]]) {
    const { world, bus } = await started({}, (bus) => void bus.subscribe("/first", () => {}));
    world.answerCommands = ({ subscribe }) => (subscribe ? { refused: { "/chat": { ...AWAY, ...after } } } : {});
    const chat = recorder();
    bus.subscribe("/chat", chat, 3);
    await world.advance(10);
    world.answerCommands = () => ({});
    await world.advance(least * 1000 - 100);
    assert.equal(world.socket.sent.length, 1);
    await world.advance(6000);
    assert.deepEqual([world.sockets.length, world.socket.sent.at(-1)], [1, { subscribe: { "/chat": 3 } }]);
    world.socket.receive([message("/chat", 4)]);
    assert.deepEqual(chat.data, ["/chat 4"]);
    bus.stop();
  }
});

test("a subscribe that fails as a whole because the store is away is asked again on the same connection", async () => {
  const { world, bus } = await started({}, (bus) => void bus.subscribe("/first", () => {}));
  world.answerCommands = null;
  bus.subscribe("/chat", () => {}, 3);
  await world.advance(10);
  const { id } = world.socket.frames.at(-1);
  world.answerCommands = () => ({});
  world.socket.receive({ id, error: { code: "unavailable", message: "the store is away" } });
  await world.advance(40_000);
  assert.deepEqual([world.sockets.length, world.socket.sent.at(-1).subscribe], [1, { "/chat": 3 }]);
});

test("a channel that waits for a person is asked for again by retry, by other grants and by another subscribe", async () => {
  const again = {
    retry: (bus) => bus.retry(),
    grants: (bus) => (bus.grants = ["fresh"]),
    subscribe: (bus) => void bus.subscribe("/secret", () => {}),
  };
  for (const [how, act] of Object.entries(again)) {
    const { world, bus } = await started({}, (bus) => void (bus.subscribe("/open", () => {}), bus.subscribe("/secret", () => {})));
    world.socket.receive([refusal({ "/secret": FORBIDDEN })]);
    await world.advance(400_000);
    assert.equal(world.socket.sent.length, 0, how);
    act(bus);
    await world.advance(200);
    assert.deepEqual(Object.keys(world.socket.sent.at(-1).subscribe), ["/secret"], how);
    assert.equal(world.sockets.length, 1, how);
    bus.stop();
  }
});

test("a channel beyond the limit is asked for again when another was left", async () => {
  const { world, bus } = await started({}, (bus) => void (bus.subscribe("/a", () => {}), bus.subscribe("/b", () => {})));
  world.socket.receive([refusal({ "/b": { code: "too_many_channels", message: "one at a time", retry: false } })]);
  await world.advance(10_000);
  assert.equal(world.socket.sent.length, 0);
  bus.subscribe("/c", () => {});
  await world.advance(200);
  bus.unsubscribe("/a");
  await world.advance(300);
  assert.deepEqual(world.socket.sent.map((frame) => Object.keys(frame)[0]), ["subscribe", "unsubscribe", "subscribe"]);
  assert.deepEqual(world.socket.sent.at(-1), { subscribe: { "/b": -1 } });
});

test("an old server that refuses the whole request for one channel does not silence the others", async () => {
  const world = new World();
  world.answers.push({ status: 403, text: JSON.stringify({ error: { code: "forbidden", message: "not you", field: "/private" } }) });
  const bus = world.bus({ transports: ["polling"] });
  const told = recorder();
  bus.on("refused", told);
  bus.subscribe("/public", () => {});
  bus.subscribe("/private", () => {});
  bus.start();
  await world.advance(1000);
  assert.deepEqual([bus.state, world.polls.length, told.data[0].channel], ["connected", 2, "/private"]);
  assert.equal(world.poll.form["/private"], undefined);
});

test("grants that are a function are asked once more before a refusal is told", async () => {
  let tokens = 0;
  const { world, bus } = await started({ grants: () => [`token ${++tokens}`] }, (bus) => void bus.subscribe("/first", () => {}));
  assert.equal(world.socket.query.__grants, "token 1");
  const told = recorder();
  bus.on("refused", told);
  world.answerCommands = ({ subscribe }) => ({ refused: subscribe && tokens < 3 ? { "/secret": FORBIDDEN } : {} });
  bus.subscribe("/secret", () => {});
  await world.advance(300);
  assert.deepEqual(world.socket.sent.map(({ grants }) => grants), [["token 2"], ["token 3"]]);
  assert.deepEqual([told.got, world.sockets.length], [[], 1]);
});

test("a channel whose grant has expired is asked for again: with new grants it goes on, and without it waits for them", async () => {
  const EXPIRED = { code: "forbidden", message: "its grant has expired", retry: true, retry_after: 1 };
  for (const renewed of ["before", "after", "by a function"]) {
    let token = "old";
    const grants = renewed === "by a function" ? () => [token] : [token];
    const { world, bus } = await started({ grants }, (bus) => void (bus.subscribe("/open", () => {}), bus.subscribe("/secret", () => {})));
    const told = recorder();
    bus.on("refused", told);
    world.answerCommands = ({ subscribe, grants: shown }) => ({ refused: subscribe && shown[0] === "old" ? { "/secret": FORBIDDEN } : {} });
    token = "new";
    if (renewed === "before") bus.grants = [token];
    world.socket.receive([refusal({ "/secret": EXPIRED })]);
    await world.advance(400_000);
    const retries = told.data.map(({ retry }) => retry);
    assert.deepEqual(retries, { before: [true], after: [true, false], "by a function": [] }[renewed], renewed);
    if (renewed === "after") bus.grants = [token];
    await world.advance(400);
    assert.deepEqual(world.socket.sent.at(-1), { subscribe: { "/secret": -1 }, grants: ["new"] }, renewed);
    assert.equal(world.sockets.length, 1, renewed);
    bus.stop();
  }
});

test("what does not fit into an address comes by the first frame: channels, positions and grants", async () => {
  const names = Array.from({ length: 150 }, (_, index) => `/doc/${index}`);
  const grants = names.map((name) => `token-of-${name}-${"x".repeat(60)}`);
  const { world } = await started({ grants }, (bus) => names.forEach((name) => bus.subscribe(name, () => {}, 7)));
  assert.ok(world.socket.url.length < 200);
  assert.equal(world.socket.refusals, "t");
  assert.deepEqual(world.socket.sent, [{ subscribe: Object.fromEntries(names.map((name) => [name, 7])), grants }]);
});
