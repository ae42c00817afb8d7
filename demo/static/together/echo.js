// A plain WebSocket to a view of the app.
const $ = (id) => document.getElementById(id);
let socket;

function show(text, className) {
  const row = Object.assign(document.createElement("div"), { textContent: text, className });
  $("log").append(row);
  row.scrollIntoView({ block: "nearest" });
}

function open() {
  const url = new URL($("text").dataset.socket, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => ($("state").textContent = "open");
  socket.onmessage = ({ data }) => show(data, "");
  socket.onclose = ({ code, reason }) => {
    $("state").textContent = `closed (${code}${reason && `, ${reason}`}); again in a moment`;
    setTimeout(open, 3000); // whoever wants that done well takes a channel
  };
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send($("text").value);
  show($("text").value, "own");
  $("text").value = "";
};
open();
