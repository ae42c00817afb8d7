// The streamed poll's separator, through the client's own front door: a fetch whose body comes in pieces.
import assert from "node:assert/strict";
import test from "node:test";
import { World, message, recorder, settle } from "./fakes.js";

async function streaming() {
  const world = new World();
  world.behave.streaming = "silent"; // the test writes all
  const bus = world.bus({ transports: ["streaming"] });
  const chat = recorder();
  bus.subscribe("/chat", chat, 0);
  bus.start();
  await world.advance(1);
  return { world, bus, chat };
}

const encode = (text) => new TextEncoder().encode(text);
const AWKWARD = ["a|b\r\n|", "zwölf 💡 Ünïcode", "\u2028\ufeff"];
const STREAM = encode(
  "[]\r\n|\r\n" + AWKWARD.map((data, index) => JSON.stringify([message("/chat", index + 1, data)]) + "\r\n|\r\n").join("") + "[]\r\n|\r\n",
);

test("a stream may be cut anywhere, also within a character or the separator", async () => {
  for (let at = 0; at <= STREAM.length; at++) {
    const { world, bus, chat } = await streaming();
    if (at) world.poll.write(STREAM.slice(0, at));
    await settle();
    if (at < STREAM.length) world.poll.write(STREAM.slice(at));
    await settle();
    assert.deepEqual(chat.data, AWKWARD, `cut at ${at}`);
    bus.stop();
  }
});

test("a stream may come byte by byte", async () => {
  const { world, chat } = await streaming();
  for (const byte of STREAM) world.poll.write(Uint8Array.of(byte));
  world.poll.end();
  await settle();
  for (let turn = 0; chat.got.length < AWKWARD.length && turn < 100; turn++) await settle();
  assert.deepEqual(chat.data, AWKWARD);
});

test("a batch is delivered before the next one is there", async () => {
  const { world, chat } = await streaming();
  world.poll.send([message("/chat", 1)]);
  await settle();
  assert.equal(chat.got.length, 1);
});

test("the separator inside a batch is escaped and restored", async () => {
  const { world, chat } = await streaming();
  // Between two values JSON may hold any white space; the separator has a bar, so only an escaped one can stand there.
  world.poll.write('[]\r\n|\r\n[{"global_id":1,"message_id":1,"channel":"/chat","data":"\\r\\n|\\r\\n"}]\r\n|\r\n');
  await settle();
  assert.deepEqual(chat.data, ["\r\n|\r\n"]);
});

test("one batch without a separator is taken at the end, from a server that does not stream", async () => {
  const { world, chat } = await streaming();
  world.poll.answer([message("/chat", 1)]);
  await settle();
  assert.deepEqual(chat.data, ["/chat 1"]);
});

test("a message of a megabyte in many pieces arrives whole", async () => {
  const { world, chat } = await streaming();
  const big = "ü".repeat(500_000);
  const bytes = encode(JSON.stringify([message("/chat", 1, big)]) + "\r\n|\r\n");
  for (let from = 0; from < bytes.length; from += 65_521) world.poll.write(bytes.slice(from, from + 65_521));
  for (let turn = 0; !chat.got.length && turn < 100; turn++) await settle();
  assert.equal(chat.data[0], big);
});

test("what is no batch ends the connection and is no message", async () => {
  const { world, bus, chat } = await streaming();
  world.poll.write("<html>captive portal</html>\r\n|\r\n");
  await settle();
  assert.deepEqual([chat.got, bus.state, world.poll.aborted], [[], "connecting", true]);
});
