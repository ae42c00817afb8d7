// One request for `polling`, `long-polling` or `streaming`.

import { batchSplitter } from "../batches.js";
import { endpoint } from "../wire.js";

const PLAIN_TIMEOUT = 10000; // ms for a poll that is not held, until its answer begins

export async function openPoll(link, client, query, headers) {
  const { settings, plan } = client;
  const isStream = link.name === "streaming";
  // A held poll is silent while all is well, so where something is to be known the first is not held.
  const isFresh = client.state !== "connected" || [...link.asked.values()].some(({ entry }) => !entry.isJoined);
  link.greeting = link.name === "long-polling" && isFresh;
  link.plain = link.name === "polling" || link.greeting || !plan.mayHold();
  const abort = new AbortController();
  link.close = () => abort.abort();
  if (link.plain || !isStream) link.deadline(link.plain ? PLAIN_TIMEOUT : settings.heartbeatTimeout);
  const { ok, status, url, redirected, body, headers: answered } = await fetch(
    endpoint(settings, link.plain ? "poll?dlp=t" : "poll"),
    {
      method: "POST",
      // An empty epoch asks for the store's; URLSearchParams make it a form.
      body: new URLSearchParams(`${query}&__seq=${++client.polls}${/__epoch=/.test(query) ? "" : "&__epoch="}`),
      headers: { "X-SILENCE-LOGGER": "true", ...(isStream && !link.plain ? {} : { "Dont-Chunk": "true" }), ...headers },
      credentials: settings.withCredentials ? "include" : "same-origin",
      signal: abort.signal,
    },
  );
  /** One batch, or what came in its place: a page, of a proxy or of another extension of the app. */
  const take = (text) => {
    let parsed;
    try {
      parsed = JSON.parse(text);
    } catch {}
    if (ok && !redirected && Array.isArray(parsed)) return link.receive(parsed);
    const { code, field } = parsed?.error || {};
    link.ended({
      status, url, field,
      message: `${redirected ? url : status} ${text.slice(0, 300)}`,
      retryAfter: answered.get("Retry-After"),
      code: redirected ? "redirected" : ok ? text && "not_a_batch" : code,
    });
  };
  const feed = batchSplitter(take), reader = body.getReader();
  for (let part = {}; !link.isEnded && !part.done; feed(part.value)) {
    part = await reader.read();
    link.sawBytes(); // a slow line is no silent one
  }
  if (link.batches) link.ended();
  else take("");
}
