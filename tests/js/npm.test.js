// The package as npm packs it, installed into projects that are not ours: Vite, esbuild, TypeScript, plain Node.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tools = join(root, "node_modules");
let project;

const run = (command, args, cwd = project) => execFileSync(command, args, { cwd, encoding: "utf8" });
const node = (...args) => run(process.execPath, args).trim();

before(() => {
  project = mkdtempSync(join(tmpdir(), "messagebus-npm-"));
  cpSync(join(root, "tests/npm"), project, { recursive: true });
  // --ignore-scripts: what is committed is packed; that it is current is the matter of build.test.js.
  const [{ filename }] = JSON.parse(run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", project], root));
  writeFileSync(join(project, "package.json"), '{"private": true}');
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", "--no-package-lock", `./${filename}`]);
  // The tools are the clone's: only what is packed is tried.
  for (const name of readdirSync(tools))
    if (!name.startsWith(".") && name !== "flask-messagebus") symlinkSync(join(tools, name), join(project, "node_modules", name));
});

after(() => rmSync(project, { recursive: true }));

test("it carries the built files and their types, and neither sources nor tests", () => {
  const names = readdirSync(join(project, "node_modules/flask-messagebus"), { recursive: true }).map(String);
  for (const name of ["messagebus.js", "messagebus.mjs", "messagebus.cjs", "messagebus.d.ts", "messagebus.d.cts", "messagebus.js.map"])
    assert.ok(names.includes(join("static/js", name)), name);
  assert.deepEqual(names.filter((name) => /src|test/.test(name)), []);
});

test("Node imports and requires it, in projects of either kind", () => {
  const imported = 'import MessageBus, { createMessageBus as make } from "flask-messagebus"; console.log(MessageBus.status(), make().status())';
  assert.equal(node("--input-type=module", "-e", imported), "stopped stopped");
  const required = 'const { MessageBus, createMessageBus } = require("flask-messagebus"); console.log(MessageBus.status(), createMessageBus().status())';
  assert.equal(node("--input-type=commonjs", "-e", required), "stopped stopped");
});

test("esbuild bundles it, for a page and for its global alone", () => {
  for (const [entry, expected] of [["main", "esbuild: stopped /other/ true"], ["unused", "unused: stopped"]]) {
    run(join(tools, ".bin/esbuild"), [`esbuild/${entry}.js`, "--bundle", "--minify", "--format=esm", `--outfile=out/${entry}.mjs`, "--log-level=error"]);
    assert.equal(node(`out/${entry}.mjs`), expected);
  }
});

test("Vite builds a page with it", () => {
  node(join(tools, "vite/bin/vite.js"), "build", "vite", "--logLevel", "error");
  const assets = join(project, "vite/dist/assets");
  const [bundle] = readdirSync(assets).filter((name) => name.endsWith(".js"));
  assert.match(readFileSync(join(assets, bundle), "utf8"), /message-bus\//);
});

const tsc = (...args) => {
  const { status, stdout } = spawnSync(process.execPath, [join(tools, "typescript/bin/tsc"), ...args], { cwd: join(project, "typescript"), encoding: "utf8" });
  return { status, stdout };
};

test("TypeScript takes its types under node16, from modules and CommonJS, and under bundler resolution", () => {
  for (const kind of ["node16", "bundler"]) {
    const { status, stdout } = tsc("-p", `tsconfig.${kind}.json`);
    assert.equal(status, 0, `${kind}: ${stdout}`);
    assert.equal(node("typescript/out/module.mjs"), "module: stopped");
    assert.equal(node("typescript/out/script.mjs"), "script: stopped");
    assert.equal(node("typescript/out/hooks.mjs"), "hooks: function function");
  }
  assert.equal(node("typescript/out/common.cjs"), "common: stopped");
});

test("TypeScript refuses what is wrong", () => {
  const { status, stdout } = tsc("--noEmit", "--strict", "--module", "node16", "--moduleResolution", "node16", "--target", "es2022", "wrong.mts");
  assert.notEqual(status, 0);
  assert.match(stdout, /wrong\.mts\(2,.*TS1192/);
  assert.match(stdout, /wrong\.mts\(4,.*carrier pigeon/);
});
