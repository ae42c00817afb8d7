// Builds the client from static/js/src: `npm run build`, or `make js`. What it writes is committed, so that a clone needs
// no Node; tests/js/build.test.js says so when it is not what the source gives.
//
// esbuild bundles, terser minifies: it can shorten the names of properties as well, and what it gives is a fifth smaller.
//
// node scripts/build-js.mjs [FOLDER]   writes into FOLDER in place of static/js
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";

const root = fileURLToPath(new URL("..", import.meta.url));
const home = join(root, "static/js");
const folder = process.argv[2] || home;
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

const OUTPUTS = [
  { entry: "classic.js", file: "messagebus.js", format: "iife" },
  { entry: "module.js", file: "messagebus.mjs", format: "esm" },
  { entry: "module.js", file: "messagebus.cjs", format: "cjs" },
  { entry: "calls.js", file: "messagebus-calls.mjs", format: "esm" },
  ...["react", "vue", "alpine", "htmx", "status"].flatMap((name) => [
    { entry: `hooks/${name}.js`, file: `messagebus-${name}.mjs`, format: "esm" },
    { entry: `hooks/${name}.js`, file: `messagebus-${name}.cjs`, format: "cjs" },
  ]),
  { entry: "two-way/classic.js", file: "messagebus-two-way.js", format: "iife" },
  { entry: "two-way/module.js", file: "messagebus-two-way.mjs", format: "esm" },
  { entry: "two-way/module.js", file: "messagebus-two-way.cjs", format: "cjs" },
  { entry: "hooks/alpine-classic.js", file: "messagebus-alpine.js", format: "iife" },
  { entry: "hooks/htmx-classic.js", file: "messagebus-htmx.js", format: "iife" },
  { entry: "hooks/status.js", file: "messagebus-status.js", format: "iife" },
];

/** What the hooks import as "#bus": the core beside them, or the page's global for a plain script. */
const core = (format) => ({
  name: "core",
  setup({ onResolve, onLoad }) {
    // A file of its own, for all of them.
    onResolve({ filter: /\/calls\.js$/ }, ({ kind }) => kind === "dynamic-import" ? { path: "./messagebus-calls.mjs", external: true } : undefined);
    onResolve({ filter: /^#bus$/ }, () =>
      format === "iife" ? { path: "#bus", namespace: "global" } : { path: `./messagebus.${format === "cjs" ? "cjs" : "mjs"}`, external: true });
    onLoad({ filter: /.*/, namespace: "global" }, () => ({ contents: "export const { MessageBus } = globalThis;" }));
  },
});

// Properties that others see keep their names. (terser knows those of browsers.)
const PUBLIC = [
  // what pages call, and are told
  ...["MessageBus", "createMessageBus", "version", "state", "transport", "start", "stop", "retry", "pause", "resume", "status"],
  ...["subscribe", "unsubscribe", "publish", "call", "makeCalls", "on", "continueFrom", "diagnostics", "debug", "default"],
  ...["channel", "position", "ready", "lastId", "onRefused", "timeout", "gap", "refused", "url", "delay", "code", "message"],
  // settings
  ...["transports", "baseUrl", "headers", "grants", "clientId", "withCredentials", "onStateChange", "onGap"],
  ...["callbackInterval", "backgroundCallbackInterval", "minPollInterval", "maxPollInterval", "minHiddenPollInterval"],
  ...["enableLongPolling", "enableChunkedEncoding", "alwaysLongPoll", "shouldLongPollCallback", "firstChunkTimeout"],
  ...["retryChunkedAfterRequests", "heartbeatTimeout", "websocket", "eventsource", "streaming", "polling"],
  // states and events
  ...["stopped", "idle", "connecting", "connected", "reconnecting", "offline"],
  ...["follow", "rest", "fail", "refuse", "again"],
  // diagnostics, and what is remembered
  ...["trying", "attempts", "failures", "nextAttempt", "lastProblem", "left", "queued", "channels", "epoch", "at"],
  "worked",
  // on the wire
  ...["data", "global_id", "message_id", "after", "before", "retry_after", "ping", "id", "ok", "error", "field", "transient", "key"],
  // of the page
  ...["online", "pagehide", "pageshow", "persisted", "visibilitychange", "visibilityState"],
];

// Properties of our own that browsers know as well, on objects that the client never reads or writes them on.
const OWN = [
  ...["entry", "changed", "head", "link", "paused", "delivery", "queue", "ended", "take", "drop", "lost", "force", "wake", "hide"],
  ...["opened", "use", "compare", "restart", "added", "removed", "accept", "parameters", "reconnect", "put", "emit", "memory"],
  ...["connect", "closeCode", "event", "info"],
];
// terser would leave them alone; it does not export its list of the browsers' names.
const domprops = readFileSync(join(root, "node_modules/terser/tools/domprops.js"), "utf8");
const RESERVED = [...JSON.parse(domprops.slice(domprops.indexOf("["), domprops.lastIndexOf("]") + 1).replace(/,\s*\]$/, "]")), ...PUBLIC]
  .filter((name) => !OWN.includes(name));

for (const { entry, file, format } of OUTPUTS) {
  const isCore = !/^(hooks|two-way)\//.test(entry);
  const bundle = await build({
    entryPoints: [join(home, "src", entry)],
    outfile: join(home, file), // the map's paths are relative to it, wherever it is written
    bundle: true,
    minifySyntax: isCore, // `const` becomes `let`
    sourcemap: "external",
    define: { VERSION: JSON.stringify(version) },
    plugins: [core(format)],
    external: ["react", "vue"],
    target: "es2022", // Chrome 94, Firefox 93, Safari 16.4
    charset: "utf8",
    format,
    write: false,
  });
  const [map, code] = bundle.outputFiles.sort((a, b) => b.path.length - a.path.length).map(({ text }) => text);
  const small = await minify(code, {
    ecma: 2022,
    module: format === "esm",
    toplevel: true,
    compress: {
      ...{ passes: 4, unsafe: true, unsafe_arrows: true, unsafe_methods: true, pure_getters: true },
      // All but the first for what gzip makes of it.
      ...{ keep_fargs: false, hoist_funs: true, reduce_funcs: false, if_return: false },
    },
    // The others are small, and nearly all that they name is of others.
    mangle: isCore ? { properties: { builtins: true, reserved: RESERVED, keep_quoted: true } } : {},
    sourceMap: { content: map, filename: file, url: `${file}.map`, includeSources: true },
  });
  writeFileSync(join(folder, file), `${small.code}\n`);
  writeFileSync(join(folder, `${file}.map`), `${small.map}\n`);
}

// CommonJS has declarations of its own: one file cannot be both for TypeScript.
writeFileSync(join(folder, "messagebus.d.cts"), readFileSync(join(home, "messagebus.d.ts")));
for (const name of ["react", "vue", "alpine", "htmx", "status", "two-way"]) {
  const types = readFileSync(join(home, `messagebus-${name}.d.mts`), "utf8");
  writeFileSync(join(folder, `messagebus-${name}.d.cts`), types.replaceAll(/\.\/messagebus\.m?js/g, "./messagebus.cjs"));
}
