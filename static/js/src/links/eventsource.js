// A connection over EventSource.

import { endpoint } from "../wire.js";

export function openEventSource(link, { settings }, query) {
  const source = new EventSource(endpoint(settings, `sse?${query}`), {
    withCredentials: settings.withCredentials,
  });
  // By itself it would come back with the old positions, and without backoff.
  source.onerror = () => link.ended({ message: "closed" });
  return source;
}
