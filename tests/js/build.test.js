// The built files are committed. They have to be what the source gives.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const js = join(root, "static/js");

test("the built files are what the source gives; else run `npm run build`", () => {
  const folder = mkdtempSync(join(tmpdir(), "messagebus-build-"));
  try {
    execFileSync(process.execPath, [join(root, "scripts/build-js.mjs"), folder]);
    const built = readdirSync(folder);
    assert.ok(built.includes("messagebus.js") && built.includes("messagebus.mjs.map"), `${built}`);
    const stale = built.filter((name) => !readFileSync(join(folder, name)).equals(readFileSync(join(js, name))));
    assert.deepEqual(stale, []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("source maps lead back to the modules, which they hold", () => {
  for (const name of ["messagebus.js", "messagebus.mjs", "messagebus.cjs"]) {
    assert.match(readFileSync(join(js, name), "utf8"), new RegExp(`//# sourceMappingURL=${name}.map\\s*$`));
    const { sources, sourcesContent } = JSON.parse(readFileSync(join(js, `${name}.map`), "utf8"));
    assert.ok(sources.includes("src/plan.js"), `${sources}`);
    sources.forEach((source, index) => assert.equal(sourcesContent[index], readFileSync(join(js, source), "utf8"), source));
  }
});

test("each module can be read at a sitting", () => {
  const modules = readdirSync(join(js, "src"), { recursive: true }).filter((name) => name.endsWith(".js"));
  assert.ok(modules.length > 10);
  for (const name of modules) {
    const lines = readFileSync(join(js, "src", name), "utf8").split("\n").length;
    assert.ok(lines < 400, `${name} has ${lines} lines`);
  }
});

test("the package is of the version of the Python package", () => {
  const [, version] = readFileSync(join(root, "messagebus/__init__.py"), "utf8").match(/^__version__ = "(.+)"$/m);
  assert.equal(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version, version);
});
