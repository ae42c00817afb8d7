// A connection over EventSource.

import { endpoint } from "../wire.js";

export function openEventSource(link, { settings, environment, parameters }) {
  const source = new (environment.get("EventSource"))(endpoint(settings, `sse?${parameters(link.asked)}`));
  link.close = () => source.close();
  link.deadline(settings.firstChunkTimeout);
  source.onopen = () => link.opened || link.deadline(settings.firstChunkTimeout);
  source.onmessage = (event) => link.take(event.data);
  // By itself it would come back with the old positions, and without backoff.
  source.onerror = () => link.ended({ message: "the connection broke" });
}
