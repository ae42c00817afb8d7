// Right calls compile, wrong ones do not: each line after "// wrong" has to be an error, and no other line may be one.
import assert from "node:assert/strict";
import test from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript"; // `npm install` brings it

const FILE = fileURLToPath(new URL("calls.ts", import.meta.url));

const CALLS = `
import MessageBus, { createMessageBus, type Gap, type State } from "../../static/js/messagebus.mjs";
import Named from "flask-messagebus";
import { install, type ChannelSubscription, type Member, type Room } from "../../static/js/messagebus-two-way.mjs";

const channel: ChannelSubscription = MessageBus.channel<{ text: string }>("RoomChannel", { id: 7 }, { received: ({ text }) => text.trim() });
channel.perform<number>("speak", { text: "hi" }).then((result) => result.toFixed());
const undo: () => void = MessageBus.subscribe("/chat", (data, globalId, messageId) => console.log(data.text, globalId + messageId));
MessageBus.subscribe<{ text: string }>("/chat", ({ text }) => text.trim(), "@17");
MessageBus.subscribe("/chat", () => {}, -1);
// As React's types have it: an effect returns nothing, or a function that returns nothing.
declare const V: unique symbol;
const effect: () => void | (() => void | { [V]: never }) = () => MessageBus.subscribe("/chat", () => {});
const method: () => void | (() => void | { [V]: never }) = () => MessageBus.subscribe("/chat", () => {}).unsubscribe;
const handle = MessageBus.subscribe("/chat", () => {}, { lastId: 5, onRefused: ({ channel, code, retry }) => console.log(channel, code, retry) });
handle.ready.then(({ position }) => console.log(position, handle.channel, handle.position));
handle.onRefused = null;
const off: () => void = MessageBus.on("state", (state: State, { code, url, retry }) => console.log(state, code, url, retry));
MessageBus.on("refused", ({ message }) => message.trim());
MessageBus.grants = async () => ["token"];
MessageBus.headers = () => ({ Authorization: "x" });
const forced = ["polling"] as const;
MessageBus.transports = forced;
MessageBus.retry();
MessageBus.publish("/chat", 1, { timeout: 5000 });
MessageBus.publish("/chat", 1, { transient: true, key: "me" });
MessageBus.start();
MessageBus.start({ baseUrl: "/app/", transports: ["polling"] });
MessageBus.onStateChange = (state: State, { delay = 0 }) => console.log(state, delay + 1);
MessageBus.onGap = (channel: string, { after, before }: Gap) => console.log(channel, after, before + 1);
MessageBus.shouldLongPollCallback = null;
const removed: boolean = MessageBus.unsubscribe("/chat/*");
MessageBus.publish("/chat", { any: ["thing"] }).then(({ message_id }) => message_id);
MessageBus.continueFrom({ "/chat": "@17", "/a": 3 }, "epoch");
createMessageBus({ headers: { "X-Mine": "1" } }).stop();
globalThis.MessageBus.pause();
Named.resume();
const room: Room<{ name: string }> = MessageBus.presence<{ name: string }>("/rooms/7", {
  onJoin: ({ id, info }) => console.log(id, info.name),
  onChange: ({ count, members }) => console.log(count, members?.length),
  onRefused: ({ code }) => console.log(code),
});
room.ready.then(({ members }) => members?.map(({ info }: Member<{ name: string }>) => info.name));
install(createMessageBus()).presence("/rooms/8").unsubscribe();

// wrong: not a position
MessageBus.subscribe("/chat", () => {}, "17");
// wrong: not a callback
MessageBus.subscribe("/chat", "fn");
// wrong: data is of the type that was given
MessageBus.subscribe<{ text: string }>("/chat", ({ txt }) => txt);
// wrong: no such transport
MessageBus.transports = ["websockets"];
// wrong: read-only
MessageBus.transport = "polling";
// wrong: no such event
MessageBus.on("states", () => {});
// wrong: a refusal is one object
MessageBus.on("refused", (channel, code) => {});
// wrong: read-only
handle.channel = "/other";
// wrong: grants are a list
MessageBus.grants = "token";
// wrong: read-only
MessageBus.state = "connected";
// wrong: no such setting
createMessageBus({ callbackIntervall: 1 });
// wrong: milliseconds are a number
MessageBus.callbackInterval = "15s";
// wrong: a gap's after may be null
MessageBus.onGap = (channel, { after }) => after + 1;
// wrong: no such state
if (MessageBus.state === "closed") removed;
// wrong: they are not known at first
room.members.length;
// wrong: no such event
MessageBus.presence("/rooms/7", { onjoin: () => {} });
// wrong: publish gives a promise
const id: number = MessageBus.publish("/chat", 1);
export { undo, id, effect, method, off };
`;

test("right calls compile and wrong ones do not", () => {
  const options = {
    strict: true, noEmit: true, skipLibCheck: false, types: [],
    target: ts.ScriptTarget.ES2020, lib: ["lib.es2020.d.ts", "lib.dom.d.ts"],
    module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (name) => name === FILE || fileExists.call(host, name);
  host.readFile = (name) => (name === FILE ? CALLS : readFile.call(host, name));
  host.getSourceFile = (name, ...rest) => (name === FILE ? ts.createSourceFile(name, CALLS, rest[0]) : getSourceFile.call(host, name, ...rest));
  const found = ts.getPreEmitDiagnostics(ts.createProgram([FILE], options, host));
  const wrong = found.map(({ file, start, messageText }) => {
    const at = file?.fileName === FILE ? file.getLineAndCharacterOfPosition(start).line : file?.fileName;
    return [at, ts.flattenDiagnosticMessageText(messageText, " ")];
  });
  const expected = CALLS.split("\n").flatMap((line, index) => (line.startsWith("// wrong") ? [index + 1] : []));
  assert.deepEqual([...new Set(wrong.map(([at]) => at))], expected, JSON.stringify(wrong, null, 1));
});

test("every setting is declared with its name", async () => {
  const { readFileSync } = await import("node:fs");
  const types = readFileSync(new URL("../../static/js/messagebus.d.ts", import.meta.url), "utf8");
  const { createMessageBus } = await import("../../static/js/messagebus.mjs");
  for (const name of Object.keys(createMessageBus())) assert.match(types, new RegExp(`^  (readonly )?${name}[:(<]`, "m"), name);
});
