// One request for `polling`, `long-polling` or `streaming`.

import { batchSplitter } from "../batches.js";
import { endpoint } from "../wire.js";

const PLAIN_TIMEOUT = 10000; // ms for a poll that is not held, until its answer begins

export async function openPoll(link, { settings, environment, plan, channels, isFresh, nextSequence }, { headers, parameters }) {
  // A held poll is silent while all is well, so where something is to be known the first is not held.
  link.greeting = link.name === "long-polling" && isFresh(link);
  link.plain = link.name === "polling" || link.greeting || !plan.mayHold();
  const stream = link.name === "streaming" && !link.plain;
  const abort = new (environment.get("AbortController"))();
  link.close = () => abort.abort();
  if (!stream) link.deadline(link.plain ? PLAIN_TIMEOUT : settings.heartbeatTimeout);
  const response = await environment.get("fetch")(endpoint(settings, link.plain ? "poll?dlp=t" : "poll"), {
    method: "POST",
    // An empty epoch asks for the store's; URLSearchParams make it a form.
    body: new URLSearchParams(`${parameters(link.asked)}&__seq=${nextSequence()}${channels.epoch ? "" : "&__epoch="}`),
    headers: { "X-SILENCE-LOGGER": "true", ...(stream ? {} : { "Dont-Chunk": "true" }), ...headers },
    credentials: settings.withCredentials ? "include" : "same-origin",
    cache: "no-store",
    signal: abort.signal,
  });
  const { ok, status, url, redirected, body } = response;
  const isGood = ok && !redirected;
  let text = "";
  /** One batch, or what came in its place. */
  const take = (one) => {
    let parsed;
    try {
      parsed = JSON.parse(one);
    } catch {
      // a page, of a proxy or of another extension of the app
    }
    if (isGood && Array.isArray(parsed)) return link.receive(parsed);
    const { code, field } = parsed?.error || {};
    const message = `${redirected ? `redirected to ${url}:` : status} ${one.slice(0, 300)}`;
    link.ended({
      status, url, message, field, retryAfter: response.headers.get("Retry-After"),
      code: redirected ? "redirected" : ok ? "not_a_batch" : code,
    });
  };
  const decoder = new TextDecoder();
  const feed = stream && isGood ? batchSplitter(take) : (bytes) => (text += decoder.decode(bytes, { stream: !!bytes }));
  const reader = body.getReader();
  for (let part = {}; link.isCurrent() && !part.done; feed(part.value)) {
    part = await reader.read();
    link.sawBytes(); // a slow line is no silent one
  }
  if (!(stream && isGood) && link.isCurrent()) take(text);
  link.ended(link.batches ? undefined : { message: "an empty answer" });
}
