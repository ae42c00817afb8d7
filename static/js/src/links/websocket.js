// A connection over WebSocket, which also carries commands.

import { QUERY_LIMIT, endpoint } from "../wire.js";

export function openWebSocket(link, { settings, environment, parameters, changed }) {
  // No subprotocol: browsers hang up on a server that does not confirm it.
  const first = new Map();
  for (const one of link.asked) if (parameters(first.set(...one)).length > QUERY_LIMIT) first.delete(one[0]);
  link.asked = first; // the rest follows when it is open
  const page = environment.get("document")?.baseURI || environment.get("location")?.href;
  const url = new URL(endpoint(settings, `ws?${parameters(first)}`), page);
  const socket = new (environment.get("WebSocket"))(url.href.replace(/^http/, "ws"));
  link.close = () => socket.close();
  link.send = (frame) => socket.send(JSON.stringify(frame));
  link.deadline(settings.firstChunkTimeout);
  socket.onopen = () => {
    if (!link.isCurrent()) return;
    link.sawBytes();
    link.spoke();
    changed();
  };
  socket.onmessage = (event) => link.take(event.data);
  socket.onclose = ({ code, reason }) => link.ended({ message: `closed: ${code} ${reason}` });
}
