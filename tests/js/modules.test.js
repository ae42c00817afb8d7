// The ways in: classic script, ES module, package. In a real browser they are tried by tests/browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

const root = fileURLToPath(new URL("../..", import.meta.url));
const source = readFileSync(join(root, "static/js/messagebus.js"), "utf8");

// Runs the file as a classic script in a page of its own.
function load(dataset, page = {}) {
  const globals = {
    TextDecoder, URL, URLSearchParams, AbortController, crypto, performance, setTimeout, clearTimeout,
    console,
    document: { currentScript: dataset && { dataset }, addEventListener() {}, removeEventListener() {} },
    ...page,
  };
  const context = vm.createContext(globals);
  page.globals = globals;
  vm.runInContext(source, context);
  return { bus: globals.MessageBus, globals, context };
}

test("as a classic script it sets MessageBus and nothing else", () => {
  const before = Object.keys(load().globals).length;
  const { bus, globals } = load();
  assert.equal(bus.status(), "stopped");
  assert.deepEqual(Object.keys(globals).filter((name) => name === "MessageBus"), ["MessageBus"]);
  assert.equal(Object.keys(globals).length, before);
});

test("the script tag's attributes set the mount point, the positions and the epoch", () => {
  const { bus } = load({ baseUrl: "/app/", channels: '{"/chat": "@17"}', epoch: "e7" });
  bus.subscribe("/chat", () => {});
  const { channels, epoch, status } = bus.diagnostics();
  assert.deepEqual([bus.baseUrl, { ...channels }, epoch, status], ["/app/", { "/chat": "@17" }, "e7", "stopped"]);
});

test("a server that is silent for longer says so in the tag", () => {
  assert.equal(load({ channels: "{}", heartbeatTimeout: "75000" }).bus.heartbeatTimeout, 75000);
});

test("data-start starts it", () => {
  const { bus } = load({ start: "", channels: "{}" });
  assert.equal(bus.status(), "started");
  bus.stop();
});

test("attributes that are not JSON are an error of the script, and the bus is there", () => {
  const page = {};
  assert.throws(() => load({ channels: "{" }, page), { name: "SyntaxError" });
  assert.equal(page.globals.MessageBus.status(), "stopped");
});

test("loaded twice, the page has one bus, and the second tag's positions count", () => {
  const { bus, globals, context } = load({ channels: '{"/a": 1}' });
  globals.document.currentScript = { dataset: { channels: '{"/b": 2}' } };
  vm.runInContext(source, context);
  assert.equal(globals.MessageBus, bus);
  bus.subscribe("/a", () => {});
  bus.subscribe("/b", () => {});
  assert.deepEqual({ ...bus.diagnostics().channels }, { "/a": 1, "/b": 2 });
});

test("as an ES module it has a default and named exports, the same as the global", async () => {
  const module = await import("../../static/js/messagebus.mjs");
  assert.equal(module.default, globalThis.MessageBus);
  assert.equal(module.MessageBus, module.default);
  assert.equal(module.createMessageBus, module.default.createMessageBus);
  assert.notEqual(module.createMessageBus(), module.default);
});

test("as an installed package it is imported by its name", () => {
  const folder = mkdtempSync(join(tmpdir(), "messagebus-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(root, join(folder, "node_modules/flask-messagebus"));
    const script = `
      import MessageBus, { createMessageBus } from "flask-messagebus";
      import "flask-messagebus/messagebus.js";
      console.log(MessageBus === globalThis.MessageBus, createMessageBus().status());`;
    const printed = execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: folder, encoding: "utf8" });
    assert.equal(printed.trim(), "true stopped");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
