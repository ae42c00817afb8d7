import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { gzipSync } from "node:zlib";

const LIMIT = 8 * 1024; // bytes of the minified core

test("the client stays inside its size budget", () => {
  const source = readFileSync(new URL("../../static/js/messagebus.js", import.meta.url));
  const size = gzipSync(source).length;
  assert.ok(size <= LIMIT, `${size} B gzipped, ${LIMIT} allowed`);
});

test("it asks nothing of a content security policy: no eval, no inline style, no markup", () => {
  const source = readFileSync(new URL("../../static/js/messagebus.js", import.meta.url), "utf8");
  assert.doesNotMatch(source, /\beval\b|new Function|innerHTML|\.style\b|document\.write/);
});
