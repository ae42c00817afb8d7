// A world for the client to live in: a clock that moves when told to, a page, a store, and a server that records what it
// is asked and behaves as a test says. Nothing here waits in real time.
import { readFileSync } from "node:fs";

const GLOBALS = [
  ...["globalThis", "fetch", "WebSocket", "EventSource", "setTimeout", "clearTimeout", "document", "location"],
  ...["performance", "Date", "Math", "localStorage", "console", "URL", "URLSearchParams", "TextDecoder", "AbortController", "AbortSignal", "crypto"],
];
const built = (name) => readFileSync(new URL(`../../static/js/${name}`, import.meta.url), "utf8");
// A page loads the file of the commands with the first of them; so does this one, with the globals of its world.
const makeModule = new Function(...GLOBALS, built("messagebus-calls.mjs").replace(/export\s*\{\s*(\w+) as makeCalls\s*\}/, "return{makeCalls:$1}"));
const run = new Function(...GLOBALS, "loadCalls", built("messagebus.js").replace('import("./messagebus-calls.mjs")', "loadCalls()"));

// Lets promises that are ready run on; fetch and streams take several turns.
export const settle = async () => {
  for (let turn = 0; turn < 8; turn++) await new Promise(setImmediate);
};

class Target {
  listeners = new Map();
  addEventListener(type, fn) {
    this.listeners.set(type, [...(this.listeners.get(type) || []), fn]);
  }
  removeEventListener(type, fn) {
    this.listeners.set(type, (this.listeners.get(type) || []).filter((one) => one !== fn));
  }
  get listening() {
    return [...this.listeners.values()].flat().length;
  }
  emit(type, event = {}) {
    for (const fn of this.listeners.get(type) || []) fn(event);
  }
}

class Request {
  constructor(world, url, init) {
    this.url = url;
    this.at = world.time;
    this.plain = url.endsWith("?dlp=t");
    this.headers = init.headers;
    this.type = new Response(init.body).headers.get("Content-Type"); // as a browser would send it
    this.credentials = init.credentials;
    const { __refusals, ...form } = Object.fromEntries(new URLSearchParams(init.body));
    Object.assign(this, { form, refusals: __refusals });
    this.kind = this.plain ? "polling" : "Dont-Chunk" in init.headers ? "long-polling" : "streaming";
    this.aborted = false;
    this.response = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    init.signal.addEventListener("abort", () => {
      this.aborted = true;
      this.fail("aborted");
    });
  }
  answer(batch, { status = 200, headers = {} } = {}) {
    const text = typeof batch === "string" ? batch : JSON.stringify(batch);
    this.resolve(new Response(text, { status, headers }));
  }
  fail(reason = "network error") {
    const error = new TypeError(reason);
    this.reject(error);
    if (this.controller && !this.over) this.controller.error(error);
    this.over = true;
  }
  // Bytes or text of a streamed answer; the first call sends the head.
  write(piece) {
    if (!this.controller) this.resolve(new Response(new ReadableStream({ start: (controller) => (this.controller = controller) })));
    if (piece) this.controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
  }
  send(batch) {
    this.write(JSON.stringify(batch).replaceAll("\r\n|\r\n", "\r\n||\r\n") + "\r\n|\r\n");
  }
  end() {
    this.over = true;
    this.controller.close();
  }
}

export class World {
  time = 1_000_000;
  calendar = 0; // ms by which the clock on the wall was set
  stood = 0; // ms of sleep that the other clock has not counted
  timers = new Map();
  lastTimer = 0;
  window = new Target();
  document = { hidden: false };
  store = new Map();
  polls = [];
  posted = []; // commands that came by requests: {url, body, headers, answer(body, status), fail()}
  sockets = [];
  sources = [];
  log = [];
  states = [];
  // "open": works; "mute": opens, and says nothing; "fail": breaks before a byte; "silent": says nothing. polling answers [] unless `answers` has something.
  behave = { websocket: "open", eventsource: "open", streaming: "open", "long-polling": "open", polling: "open" };
  answers = [];
  answerCommands = () => ({});
  answerPings = true;
  beats = true; // whether the server sends its heartbeats on what it holds
  held = []; // what it holds: {due, beat}

  constructor() {
    const world = this;
    class Socket {
      sent = []; // without ids where the world has answered by itself
      frames = [];
      closed = false;
      constructor(url, options = {}) {
        const { __refusals, ...query } = Object.fromEntries(new URL(url, "http://page.test/").searchParams);
        Object.assign(this, { query, refusals: __refusals, url: url.replace(/[?&]__refusals=t$/, ""), options, at: world.time });
        this.connect();
      }
      send(text) {
        const frame = JSON.parse(text);
        this.frames.push(frame);
        const { id, ...command } = frame;
        // What subscribes and leaves is answered at once, as long as the test does not take that over.
        if (world.answerCommands && (command.subscribe || command.unsubscribe)) {
          world.setTimeout(() => this.receive({ id, ok: world.answerCommands(command) }), 0);
          this.sent.push(command);
        } else if (command.ping && world.answerPings) world.setTimeout(() => this.receive({ pong: command.ping }), 0);
        else this.sent.push(frame);
      }
      close() {
        this.closed = true;
      }
      receive(body) {
        if (!this.closed) this.onmessage({ data: JSON.stringify(body) });
      }
    }
    this.WebSocket = class extends Socket {
      connect() {
        world.sockets.push(this);
        // The first batch follows the handshake at once. "mute": only the handshake passes.
        const opens = ["open", "mute"].includes(world.behave.websocket);
        if (opens) world.setTimeout(() => this.closed || this.onopen({}), 1);
        if (world.behave.websocket === "open") world.setTimeout(() => this.receive([]), 1), world.hold(() => this.receive([]));
        if (world.behave.websocket === "fail") world.setTimeout(() => this.break(1006), 1);
      }
      break(code = 1006, reason = "") {
        if (!this.closed) this.onclose({ code, reason });
      }
    };
    this.EventSource = class extends Socket {
      connect() {
        world.sources.push(this);
        if (world.behave.eventsource === "open") world.setTimeout(() => this.closed || (this.onopen?.({}), this.receive([])), 1);
        if (world.behave.eventsource === "open") world.hold(() => this.receive([]));
        if (world.behave.eventsource === "fail") world.setTimeout(() => this.break(), 1);
      }
      break() {
        if (!this.closed) this.onerror({});
      }
    };
  }

  setTimeout = (fn, ms) => {
    this.timers.set(++this.lastTimer, { fn, due: this.time + ms, ms });
    return this.lastTimer;
  };
  clearTimeout = (timer) => this.timers.delete(timer);

  fetch = (url, init) => {
    if (init.headers["Content-Type"]) return this.post(url, init);
    const request = new Request(this, url, init);
    this.polls.push(request);
    const how = this.behave[request.kind];
    if (how === "fail") request.fail();
    else if (how !== "silent") {
      if (request.kind === "streaming") request.send([]), this.hold(() => request.over || request.send([]));
      if (request.kind === "polling") {
        const next = this.answers.shift() || [];
        if (Array.isArray(next)) request.answer(next);
        else request.answer(next.text || "", next);
      }
    }
    return request.response;
  };

  post(url, { body, headers, credentials, signal }) {
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(new TypeError("aborted")));
      this.posted.push({
        url, headers, credentials, body: JSON.parse(body),
        answer: (answer, status = 200, more = {}) => {
          const response = new Response(typeof answer === "string" ? answer : JSON.stringify(answer), { status });
          for (const name in more) Object.defineProperty(response, name, { value: more[name] });
          resolve(response);
        },
        fail: () => reject(new TypeError("network error")),
      });
    });
  }

  environment() {
    const world = this;
    return {
      AbortSignal: {
        timeout(ms) {
          if (!(Number.isInteger(ms) && ms >= 0 && ms < 2 ** 32)) throw new RangeError(`delay out of range: ${ms}`); // as Node does
          const controller = new AbortController();
          world.setTimeout(() => controller.abort(), ms);
          return controller.signal;
        },
      },
      fetch: this.fetch,
      WebSocket: this.WebSocket,
      EventSource: this.EventSource,
      setTimeout: this.setTimeout,
      clearTimeout: this.clearTimeout,
      document: this.document,
      location: { href: "http://page.test/room" },
      performance: { now: () => this.time - this.stood },
      Date: class extends Date { static now = () => world.time + world.calendar; },
      Math: Object.assign(Object.create(Math), { random: () => 0.5 }),
      localStorage: {
        getItem: (key) => this.store.get(key) ?? null,
        setItem: (key, value) => this.store.set(key, value),
        removeItem: (key) => this.store.delete(key),
      },
      console: {
        log: (...what) => world.log.push(["log", ...what]),
        error: (...what) => world.log.push(["error", ...what]),
        warn: (...what) => world.log.push(["warn", ...what]),
      },
    };
  }

  /** The client as this world has it. `changes`: other globals; one that is undefined is missing. */
  createMessageBus(settings, changes = {}) {
    const globals = { URL, URLSearchParams, TextDecoder, AbortController, crypto, ...this.environment(), ...changes };
    for (const verb of ["addEventListener", "removeEventListener"]) globals[verb] = (...args) => this.window[verb](...args);
    globals.globalThis = globals;
    const values = GLOBALS.map((name) => globals[name]);
    run(...values, async () => makeModule(...values));
    return globals.MessageBus.createMessageBus(settings);
  }

  bus(settings = {}, changes = {}) {
    const bus = this.createMessageBus({
      onStateChange: (state, info) => this.states.push([state, info]),
      ...settings,
    }, changes);
    this.made = bus;
    return bus;
  }

  get stateNames() {
    return this.states.map(([state]) => state);
  }
  get socket() {
    return this.sockets.at(-1);
  }
  get source() {
    return this.sources.at(-1);
  }
  get poll() {
    return this.polls.at(-1);
  }

  // Moves the clock, and fires what comes due on the way, in order.
  hold(beat) {
    this.held.push({ due: this.time + 25_000, fn: () => this.beats && beat() });
  }

  async advance(ms) {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const due = [...[...this.timers].map(([timer, one]) => ({ timer, ...one })), ...this.held.map((one) => ({ held: one, ...one }))];
      const [next] = due.filter((one) => one.due <= end).sort((a, b) => a.due - b.due);
      if (!next) break;
      this.time = Math.max(this.time, next.due);
      if (next.held) next.held.due += 25_000;
      else this.timers.delete(next.timer);
      next.fn();
      await settle();
    }
    this.time = end;
  }

  // The machine sleeps: timers do not go on. `stands`: nor does the clock that only ever grows, as on some systems.
  async sleep(ms, { stands = false } = {}) {
    this.time += ms;
    if (stands) this.stood += ms;
    for (const one of this.held) one.due = Math.max(one.due, this.time + 25_000);
    await this.advance(0);
  }

  show(visibilityState) {
    this.document.hidden = visibilityState === "hidden";
    this.window.emit("visibilitychange");
  }
}

// A message as the server sends it. Global ids are ten times the message's, so that the two cannot be mixed up unseen.
export const message = (channel, message_id, data = `${channel} ${message_id}`) => ({
  global_id: message_id * 10, message_id, channel, data,
});
export const status = (data) => ({ global_id: -1, message_id: -1, channel: "/__status", data });
export const gap = (data) => ({ global_id: -1, message_id: -1, channel: "/__gap", data });

// A callback that keeps what it got.
export function recorder() {
  const callback = (...args) => callback.got.push(args);
  callback.got = [];
  Object.defineProperty(callback, "data", { get: () => callback.got.map(([data]) => data) });
  return callback;
}

/** A page that has followed what `follow(bus, world)` says, and started. */
export async function started(settings = {}, follow = () => {}) {
  const world = new World();
  const bus = world.bus(settings);
  const followed = follow(bus, world);
  bus.start();
  await world.advance(300);
  return { world, bus, followed };
}

/** Sends a batch on the line that is open, whatever the transport. */
export function say(world, batch) {
  const line = [...world.sockets, ...world.sources].filter(({ closed }) => !closed).at(-1);
  if (line) line.receive(batch);
  else if (world.poll.kind === "streaming") world.poll.send(batch);
  else world.poll.answer(batch);
}

export const refusal = (data) => ({ global_id: -1, message_id: -1, channel: "/__refused", data });
export const FORBIDDEN = { code: "forbidden", message: "not you", retry: false };
