// What the documentation of message-bus-client promises to pages, kept by this client. Its own package is beside it for
// what can be compared: names and defaults.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import test from "node:test";
import vm from "node:vm";
import { World, message, recorder, settle } from "./fakes.js";

const POLLS = ["streaming", "long-polling", "polling"];
const PACKAGE = new URL("../../node_modules/message-bus-client/", import.meta.url);

// A page that polls, and has a callback on /chat.
async function polling(settings = {}, position = undefined, world = new World()) {
  const bus = world.bus({ transports: POLLS, ...settings });
  const chat = recorder();
  bus.subscribe("/chat", chat, position);
  bus.start();
  await world.advance(10);
  return { world, bus, chat };
}

function original() {
  assert.ok(existsSync(PACKAGE), "message-bus-client is not in node_modules: run npm install");
  const page = {
    document: { hidden: false, addEventListener() {} }, localStorage: { setItem() {}, removeItem() {} },
    XMLHttpRequest: class { onprogress = null; },
  };
  page.self = page;
  vm.runInNewContext(readFileSync(new URL("assets/message-bus.js", PACKAGE), "utf8"), page);
  return page.MessageBus;
}

test("every method and setting of the original is there, with the same default", () => {
  const theirs = original(), ours = new World().bus();
  // ajax: requests are made with fetch. callbacks: its own list, not documented.
  for (const [name, value] of Object.entries(theirs)) {
    if (["ajax", "callbacks"].includes(name)) continue;
    assert.ok(name in ours, name);
    if (name === "clientId") assert.match(ours.clientId, /^\d{20,40}$/);
    else if (name === "headers") assert.deepEqual(Object.keys(value), Object.keys(ours.headers));
    else if (typeof value !== "function") assert.equal(ours[name] ?? undefined, value, name);
    else assert.equal(typeof ours[name], "function", name);
  }
});

test("settings are properties, and count from the next request on", async () => {
  const { world, bus } = await polling({ enableChunkedEncoding: false, enableLongPolling: false });
  bus.baseUrl = "/app/";
  bus.headers = { "X-Mine": "1" };
  bus.callbackInterval = 500;
  await world.advance(15000);
  assert.equal(world.poll.url, `/app/message-bus/${bus.clientId}/poll?dlp=t`);
  assert.equal(world.poll.headers["X-Mine"], "1");
  const before = world.polls.length;
  await world.advance(5000);
  assert.equal(world.polls.length, before + 10);
  bus.shouldLongPollCallback = () => false;
  bus.backgroundCallbackInterval = 2000;
  await world.advance(5000);
  assert.equal(world.poll.at - world.polls.at(-2).at, 2000);
});

for (const [lastId, asked] of [[undefined, "-1"], [null, "-1"], [-1, "-1"], [7, "7"], [-3, "-3"], [0, "0"]])
  test(`lastId ${lastId} asks from ${asked}`, async () => {
    const { world } = await polling({}, lastId);
    assert.equal(world.poll.form["/chat"], asked);
  });

test("a lastId that is no number throws, and subscribes to nothing", () => {
  const bus = new World().bus();
  for (const lastId of ["7", [], true, () => {}]) assert.throws(() => bus.subscribe("/chat", () => {}, lastId));
  assert.throws(() => bus.subscribe(7, () => {}));
  assert.equal(bus.unsubscribe("*"), false);
});

test("a message id that was kept is where a later subscribe goes on", async () => {
  const { world, bus } = await polling({}, 0);
  let kept;
  bus.subscribe("/chat", (payload, globalId, messageId) => (kept = [payload, globalId, messageId]));
  world.poll.send([message("/chat", 4, { text: "hi" })]);
  await settle();
  assert.deepEqual(kept, [{ text: "hi" }, 40, 4]);
  bus.unsubscribe("/chat");
  await world.advance(200);
  bus.subscribe("/chat", () => {}, kept[2]);
  await world.advance(200);
  assert.equal(world.poll.form["/chat"], "4");
});

test("unsubscribe takes the function that was given to subscribe, or what subscribe returned", async () => {
  const { world, bus, chat } = await polling();
  const [one, two] = [recorder(), recorder()];
  const returned = [bus.subscribe("/chat", one), bus.subscribe("/chat", two)];
  assert.equal(bus.unsubscribe("/chat", one), true);
  assert.equal(bus.unsubscribe("/chat", returned[1]), true);
  assert.deepEqual([bus.unsubscribe("/chat", one), bus.unsubscribe("/chat", returned[1]), returned[0]()], [false, false, false]);
  world.poll.send([message("/chat", 1)]);
  await settle();
  assert.deepEqual([chat.got.length, one.got.length, two.got.length], [1, 0, 0]);
});

test("a star at the end of unsubscribe takes every channel that begins so, with a function only that function", () => {
  const bus = new World().bus(), [one, two] = [() => {}, () => {}];
  for (const channel of ["/a/1", "/a/2", "/b"]) for (const fn of [one, two]) bus.subscribe(channel, fn);
  assert.equal(bus.unsubscribe("/a/*", one), true);
  assert.equal(bus.unsubscribe("/a/*", one), false);
  assert.deepEqual(Object.keys(bus.diagnostics().channels), ["/a/1", "/a/2", "/b"]);
  assert.equal(bus.unsubscribe("/a/*"), true);
  assert.deepEqual(Object.keys(bus.diagnostics().channels), ["/b"]);
});

test("status is paused from pause to resume, and else started or stopped", () => {
  const bus = new World().bus(), seen = [];
  for (const verb of ["start", "pause", "stop", "start", "resume", "stop"]) {
    bus[verb]();
    seen.push(bus.status());
  }
  assert.deepEqual(seen, ["started", "paused", "paused", "paused", "started", "stopped"]);
});

test("enableChunkedEncoding and enableLongPolling may be taken away while it runs", async () => {
  const { world, bus } = await polling();
  for (const [setting, kind] of [["enableChunkedEncoding", "long-polling"], ["enableLongPolling", "polling"]]) {
    bus[setting] = false;
    bus.subscribe(`/${setting}`, () => {});
    await world.advance(200);
    assert.equal(world.poll.kind, kind);
  }
});

test("a buffered stream is replaced by held polls, and tried again after retryChunkedAfterRequests of them", async () => {
  const world = new World();
  world.behave.streaming = "silent";
  await polling({ retryChunkedAfterRequests: 4, firstChunkTimeout: 2000 }, 0, world);
  assert.equal(world.poll.kind, "streaming");
  await world.advance(2500);
  assert.deepEqual([world.polls[0].aborted, world.poll.kind], [true, "long-polling"]);
  for (let held = 1; held <= 4; held++) {
    await world.advance(3000);
    assert.equal(world.poll.kind, "long-polling", `held poll ${held}`);
    world.poll.answer([]);
    await world.advance(500);
  }
  assert.equal(world.poll.kind, "streaming");
});

test("429 is waited out: its Retry-After, and 15 seconds at least", async () => {
  for (const [header, seconds] of [["40", 40], ["3", 15], [null, 15]]) {
    const { world } = await polling({ transports: ["polling"] });
    world.answers.push({ status: 429, headers: header ? { "Retry-After": header } : {} });
    await world.advance(15000);
    const before = world.polls.length;
    await world.advance((seconds - 1) * 1000);
    assert.equal(world.polls.length, before, `${header}`);
    await world.advance(2000);
    assert.equal(world.polls.length, before + 1, `${header}`);
  }
});

test("hidden pages of one origin wait for each other: minHiddenPollInterval between any two polls", async () => {
  const world = new World();
  world.show("hidden");
  for (const name of ["a", "b", "c"]) {
    const page = world.bus({ transports: ["polling"], clientId: name, minHiddenPollInterval: 2000, backgroundCallbackInterval: 2500 });
    page.subscribe("/chat", () => {});
    page.start();
  }
  await world.advance(60_000);
  const times = world.polls.map(({ at }) => at);
  const distances = times.slice(1).map((at, index) => at - times[index]);
  assert.ok(Math.min(...distances) >= 2000, `${Math.min(...distances)} ms`);
  const pages = world.polls.map(({ url }) => url.split("/")[2]);
  assert.deepEqual([...new Set(pages)].sort(), ["a", "b", "c"]);
});

test("a hidden page waits for a page with the original client as well, and tells it of its polls", async () => {
  const { world, bus } = await polling({ transports: ["polling"], backgroundCallbackInterval: 5000 });
  assert.equal(world.store.get("__mbLastAjax"), String(world.poll.at));
  world.show("hidden");
  await world.advance(14_900);
  world.store.set("__mbLastAjax", String(world.time));
  const [before, noted] = [world.polls.length, world.time];
  await world.advance(1000);
  assert.equal(world.polls.length, before);
  await world.advance(2000);
  assert.equal(world.polls.length, before + 1);
  assert.ok(world.poll.at - noted >= bus.minHiddenPollInterval);
});

test("a page that is shown does not wait for others, nor does one without localStorage", async () => {
  const { world } = await polling({ transports: ["polling"] });
  world.show("hidden");
  await world.advance(14_900);
  world.store.set("__mbLastAjax", String(world.time));
  await world.advance(200);
  const before = world.polls.length;
  world.show("visible");
  await world.advance(0);
  assert.equal(world.polls.length, before + 1);
  const lonely = new World();
  lonely.show("hidden");
  Object.defineProperty(lonely, "store", { get() { throw new Error("SecurityError"); } });
  const bus = lonely.bus({ transports: ["polling"] });
  bus.subscribe("/chat", () => {});
  bus.start();
  await lonely.advance(10);
  assert.equal(lonely.polls.length, 1);
});

test("after failures the delay grows up to maxPollInterval and no further", async () => {
  const { world } = await polling({ transports: ["polling"], maxPollInterval: 8000 });
  world.behave.polling = "fail";
  await world.advance(120_000);
  const times = world.polls.slice(-5).map(({ at }) => at);
  for (const [index, at] of times.slice(1).entries()) assert.ok(at - times[index] <= 8000 && at - times[index] >= 2000);
});
