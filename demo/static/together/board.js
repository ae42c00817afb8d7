// Everybody's cursor, as transient messages: live, without an id, and the newest of each cursor where a line is slow.
const { MessageBus } = window;
const BOARD = "/together/board";
const TELL_MS = 50, GONE_MS = 5000, STEP = 0.02;
const $ = (id) => document.getElementById(id);
const { me } = document.body.dataset;
const cursors = new Map(); // user -> {element, at}
const rates = Array(60).fill(0);
const own = { x: 0.5, y: 0.5 };
let received = 0, due = false;

MessageBus.subscribe(BOARD, ({ from, name, x, y, at }) => {
  received++;
  const cursor = cursors.get(from) ?? makeCursor(from, name);
  cursor.at = performance.now();
  cursor.element.style.translate = `calc(${x} * var(--width)) calc(${y} * var(--height))`;
  if (from === me) $("trip").textContent = `${Math.max(0, Math.round(performance.now() - at))} ms`;
});

function makeCursor(user, name) {
  const element = Object.assign(document.createElement("span"), { className: `cursor${user === me ? " own" : ""}`, textContent: name });
  element.style.setProperty("--hue", parseInt(user, 16) % 360);
  $("board").append(element);
  const cursor = { element };
  cursors.set(user, cursor);
  return cursor;
}

function tell() {
  if (due) return;
  due = true;
  setTimeout(() => {
    due = false;
    MessageBus.publish(BOARD, { ...own, at: performance.now() }, { transient: true, key: "cursor" }).catch(() => {});
  }, TELL_MS);
}

const clamp = (share) => Math.min(1, Math.max(0, share));
$("board").onpointermove = ({ clientX, clientY }) => {
  const { left, top, width, height } = $("board").getBoundingClientRect();
  Object.assign(own, { x: clamp((clientX - left) / width), y: clamp((clientY - top) / height) });
  tell();
};
$("board").onkeydown = (event) => {
  const move = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
  if (!move) return;
  event.preventDefault();
  Object.assign(own, { x: clamp(own.x + move[0]), y: clamp(own.y + move[1]) });
  tell();
};

new ResizeObserver(([{ contentRect: { width, height } }]) => {
  $("board").style.setProperty("--width", `${width}px`);
  $("board").style.setProperty("--height", `${height}px`);
}).observe($("board"));

setInterval(() => {
  rates.push(received);
  rates.shift();
  $("rate").textContent = received;
  received = 0;
  const top = Math.max(...rates, 1);
  const points = rates.map((rate, index) => `${(index * 100) / 59},${29 - (28 * rate) / top}`);
  $("chart").firstElementChild.setAttribute("points", points.join(" "));
  for (const [user, { element, at }] of cursors)
    if (performance.now() - at > GONE_MS) {
      element.remove();
      cursors.delete(user);
    }
}, 1000);

MessageBus.on("state", (state, { transport }) => {
  $("transport").textContent = state === "connected" ? transport : state;
});
MessageBus.presence(BOARD, { onChange: ({ count }) => ($("count").textContent = count) });
