// What subscribe returns, where each subscription begins, and channels that are refused by themselves.
import assert from "node:assert/strict";
import test from "node:test";
import { World, gap, message, recorder, status } from "./fakes.js";

const ALL = ["websocket", "eventsource", "streaming", "long-polling", "polling"];
const refusal = (data) => ({ global_id: -1, message_id: -1, channel: "/__refused", data });
const FORBIDDEN = { code: "forbidden", message: "not you", retry: false };
const AWAY = { code: "unavailable", message: "the store is away", retry: true };

async function started(settings = {}, follow = () => {}) {
  const world = new World();
  const bus = world.bus(settings);
  const followed = follow(bus, world);
  bus.start();
  await world.advance(300);
  return { world, bus, followed };
}

// The line that is open, whatever the transport; sends a batch on it.
function say(world, batch) {
  const line = [...world.sockets, ...world.sources].filter(({ closed }) => !closed).at(-1);
  if (line) line.receive(batch);
  else if (world.poll.kind === "streaming") world.poll.send(batch);
  else world.poll.answer(batch);
}

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

// ---- a channel is refused by itself ----

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
