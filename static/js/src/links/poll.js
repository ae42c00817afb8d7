// One request for `polling`, `long-polling` or `streaming`.

import { batchSplitter } from "../batches.js";
import { endpoint } from "../wire.js";

const PLAIN_TIMEOUT = 20000; // ms for a poll that is not held

/** Opens a poll. `link` is told by its own `receive`, `ended`, `heard` and `deadline`. */
export async function openPoll(link, { settings, environment, plan, parameters, channels, nextSequence }) {
  // A held poll is silent while all is well, so the first is not held: then we know.
  link.greeting = link.name === "long-polling" && plan.state !== "connected";
  link.plain = link.name === "polling" || link.greeting || !plan.mayHold();
  const stream = link.name === "streaming" && !link.plain;
  const abort = new (environment.get("AbortController"))();
  link.close = () => abort.abort();
  const { firstChunkTimeout, heartbeatTimeout } = settings;
  link.deadline(link.plain ? PLAIN_TIMEOUT : stream ? firstChunkTimeout : heartbeatTimeout);
  try {
    // An empty epoch asks for the store's; URLSearchParams make it a form.
    const epoch = channels.epoch ? "" : "&__epoch=";
    const response = await environment.get("fetch")(endpoint(settings, link.plain ? "poll?dlp=t" : "poll"), {
      method: "POST",
      body: new URLSearchParams(`${parameters(link.asked)}&__seq=${nextSequence()}${epoch}`),
      headers: { "X-SILENCE-LOGGER": "true", ...(stream ? {} : { "Dont-Chunk": "true" }), ...settings.headers },
      cache: "no-store",
      signal: abort.signal,
    });
    const { ok, status, headers, body } = response;
    if (!ok) {
      const message = `${status} ${(await response.text()).slice(0, 300)}`;
      return link.ended({ status, retryAfter: headers.get("Retry-After"), message });
    }
    if (stream && body) {
      const feed = batchSplitter((text) => link.receive(JSON.parse(text)));
      const reader = body.getReader();
      for (let part = {}; link.isCurrent() && !part.done; feed(part.value)) {
        part = await reader.read();
        link.sawBytes();
        if (!link.opened) link.deadline(heartbeatTimeout); // bytes get through, if slowly
      }
    } else link.receive(JSON.parse(await response.text()));
    link.ended(link.opened ? undefined : { message: "an empty answer" });
  } catch (error) {
    link.ended({ message: String(error) });
  }
}
