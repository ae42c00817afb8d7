// A connection over WebSocket, which also carries commands.

import { endpoint } from "../wire.js";

export function openWebSocket(link, { settings, changed }, query) {
  const page = globalThis.document?.baseURI || location.href;
  const url = new URL(endpoint(settings, `ws?${query}`), page);
  // No subprotocol: browsers hang up on a server that does not confirm it.
  const socket = new WebSocket(url.href.replace(/^http/, "ws"));
  socket.onopen = () => {
    link.send = (frame) => socket.send(JSON.stringify(frame));
    changed();
  };
  socket.onclose = ({ code, reason }) => link.ended({ message: `closed: ${code} ${reason}`, closeCode: code });
  return socket;
}
