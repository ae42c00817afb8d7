// A connection over WebSocket, which also carries commands.

import { QUERY_LIMIT, endpoint } from "../wire.js";

export function openWebSocket(link, { settings, environment, changed }, { parameters }) {
  // What does not fit into the address follows when it is open: all of it, grants included.
  let query = parameters(link.asked);
  if (query.length > QUERY_LIMIT) {
    link.asked.clear();
    query = parameters(link.asked, []);
  }
  const page = environment.get("document")?.baseURI || environment.get("location")?.href;
  const url = new URL(endpoint(settings, `ws?${query}`), page);
  // No subprotocol: browsers hang up on a server that does not confirm it.
  const socket = new (environment.get("WebSocket"))(url.href.replace(/^http/, "ws"));
  link.close = () => socket.close();
  socket.onopen = () => {
    link.send = (frame) => socket.send(JSON.stringify(frame));
    changed();
  };
  socket.onmessage = (event) => link.take(event.data);
  socket.onclose = ({ code, reason }) => link.ended({ message: `closed: ${code} ${reason}`, closeCode: code });
}
