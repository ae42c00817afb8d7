// Commands that any transport carries: over an open WebSocket, else by a request each. A file of its own, which is loaded with
// the first command: most pages send none.

import { credentials } from "./credentials.js";
import { LONGEST, now } from "./environment.js";
import { endpoint, failure } from "./wire.js";

const TIMEOUT = 10000; // ms for an answer, over all attempts
const PAUSE = 500; // ms between two attempts
const PASSING = [404, 408, 425]; // statuses from 400 to 499 that time mends: 404 may be a deployment

/** What a publish is known by, so that it is stored once however often it is sent. (randomUUID is for https alone.) */
const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/** What came in place of an answer of the bus. Where something in front of it refuses, asking again would not help. */
function problemOf({ status, redirected, url }, text) {
  const isRefused = redirected || (status >= 400 && status < 500 && !PASSING.includes(status));
  if (!isRefused) return { code: "disconnected" };
  return { code: redirected ? "redirected" : "not_an_answer", status, url, message: `${redirected ? url : status} ${text.slice(0, 300)}` };
}

/** `settings`: the bus. `link()`: the link in use, if there is one. */
export function makeCalls(settings, link) {
  // Those that take their time, one after the other: later ones must not overtake them.
  let last = Promise.resolve(), waiting = 0;

  /** One attempt by a request. Fails with `disconnected` where no answer came. */
  async function post(verb, value, timeout) {
    const { headers } = await credentials(settings);
    const body = JSON.stringify(value);
    let answer, text, parsed;
    try {
      answer = await fetch(endpoint(settings, verb), {
        method: "POST", body,
        headers: { "Content-Type": "application/json", ...headers },
        credentials: settings.withCredentials ? "include" : "same-origin",
        signal: AbortSignal.timeout(Math.ceil(Math.min(timeout, LONGEST))), // Node takes whole numbers only
      });
      text = await answer.text();
    } catch {
      throw failure({ code: "disconnected" });
    }
    try {
      parsed = JSON.parse(text);
    } catch {} // a page
    if (parsed?.ok) return parsed.ok;
    throw failure(parsed?.error?.code ? parsed.error : problemOf(answer, text));
  }

  const isOpen = () => link()?.send;

  const attempt = (verb, value, timeout) =>
    isOpen() ? link().call({ [verb]: value }, timeout) : post(verb, value, timeout);

  /** Again and again, until there is an answer. */
  async function insist(verb, value, until) {
    for (;;)
      try {
        const left = until - now();
        if (left <= 0) throw failure({ code: "timeout" }); // those before it took so long
        return await attempt(verb, value, left);
      } catch (error) {
        // `unavailable`: the store is away, and a server keeps no publish that came by a request.
        const again = error.code === "disconnected" || (error.code === "unavailable" && verb === "publish");
        if (!again || value.transient || now() + PAUSE > until) throw error;
        await new Promise((resolve) => setTimeout(resolve, PAUSE));
      }
  }

  /** Sends a command; a promise of its answer. */
  return (verb, value, { timeout = TIMEOUT, transient, key } = {}) => {
    const until = now() + timeout;
    // What is transient is not kept, so that nobody could know it again: `key` says of which the newest matters alone.
    if (verb === "publish") value = transient ? { ...value, transient: true, key } : { ...value, key: randomKey() };
    const inTurn = () => {
      waiting++;
      const result = last.then(() => insist(verb, value, until));
      last = result.catch(() => {}).then(() => { waiting--; });
      return result;
    };
    return waiting || !isOpen() ? inTurn() : attempt(verb, value, timeout).catch((error) => {
      if (error.code === "disconnected" && !value.transient) return inTurn();
      throw error;
    });
  };
}
