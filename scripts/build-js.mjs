// Builds the client from static/js/src: `npm run build`, or `make js`. What it writes is committed, so that a clone needs
// no Node; tests/js/build.test.js says so when it is not what the source gives.
//
// node scripts/build-js.mjs [FOLDER]   writes into FOLDER in place of static/js
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const home = join(root, "static/js");
const folder = process.argv[2] || home;

// The first browsers with private fields and methods: Chrome 84, Firefox 90, Safari 15.
const TARGET = "es2022";

const OUTPUTS = [
  { entry: "classic.js", file: "messagebus.js", format: "iife" },
  { entry: "module.js", file: "messagebus.mjs", format: "esm" },
  { entry: "module.js", file: "messagebus.cjs", format: "cjs" },
];

for (const { entry, file, format } of OUTPUTS) {
  const { outputFiles } = await build({
    entryPoints: [join(home, "src", entry)],
    outfile: join(home, file), // the map's paths are relative to it, wherever it is written
    bundle: true,
    minify: true,
    sourcemap: "linked",
    target: TARGET,
    charset: "utf8",
    format,
    write: false,
  });
  for (const { path, contents } of outputFiles) writeFileSync(join(folder, basename(path)), contents);
}

// CommonJS has declarations of its own: one file cannot be both for TypeScript.
writeFileSync(join(folder, "messagebus.d.cts"), readFileSync(join(home, "messagebus.d.ts")));
