// A connection over EventSource.

import { endpoint } from "../wire.js";

export function openEventSource(link, { settings, environment }, { parameters }) {
  const url = endpoint(settings, `sse?${parameters(link.asked)}`);
  const source = new (environment.get("EventSource"))(url, { withCredentials: settings.withCredentials });
  link.close = () => source.close();
  source.onmessage = (event) => link.take(event.data);
  // By itself it would come back with the old positions, and without backoff.
  source.onerror = () => link.ended({ message: "the connection broke" });
}
