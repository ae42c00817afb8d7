// The room: follows its channel, and says what becomes of the connection. What the bus does is in the first lines;
// MessageBus is set by the script of the page's head.
import "./composer.js";
import "./page.js";
import { resend, roundTrip } from "./composer.js";
import { isLate, noteState } from "./late.js";
import * as log from "./log.js";
import { bindNickname, me, recall, remember } from "./me.js";

const LABELS = {
  websocket: "WebSocket", eventsource: "EventSource", streaming: "Streaming", "long-polling": "Long-polling", polling: "Polling",
};
const STATES = {
  connecting: "Connecting", connected: "Connected", reconnecting: "Reconnecting", offline: "Offline", stopped: "Disconnected",
  idle: "Idle", refused: "Not allowed",
};
const { room, channel, messages, limits } = document.body.dataset;
const $ = (id) => document.getElementById(id);

MessageBus.subscribe(channel, (data, globalId, messageId) => show(readable(data), globalId, messageId));
MessageBus.onGap = (_, gap) => showGap(gap);
MessageBus.onStateChange = showState;

const forced = () => (recall("transport") in LABELS ? recall("transport") : null);
const start = () =>
  MessageBus.start({ transports: forced() ? [forced()] : Object.keys(LABELS), callbackInterval: 2000 });

/* ---- messages ---- */

let delivered = 0;
let unread = 0;
let lateLine = null, lateCount = 0;

/* Other programs may publish here as well, and whatever they like. */
function readable(data) {
  const said = data && typeof data === "object" ? data : { text: data };
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");
  return {
    author: text(said.author ?? ""), key: text(said.key ?? ""), name: text(said.name || "somebody"), text: text(said.text),
    at: said.at > 0 && said.at < 1e14 ? Number(said.at) : null,
  };
}

function show(said, globalId, messageId) {
  const own = said.author === me.author;
  const late = isLate(said.at) && !own;
  delivered++;
  if (late) countLate();
  log.add({ ...said, id: messageId, global_id: globalId }, { late });
  if ($("earlier").hidden && $("beginning").hidden) showMore(false);
  if (document.hidden && !own) showUnread(unread + 1);
  showStats(own ? roundTrip(said.key) : undefined);
}

function countLate() {
  lateCount++;
  lateLine ??= log.note("", "caught");
  lateLine.firstChild.textContent = `Caught up: ${lateCount} message${lateCount === 1 ? "" : "s"} from while you were away`;
}

function showGap({ after, before }) {
  if (after === null) {
    log.makeOld();
    log.note("The server's store was reset. The messages above exist on this page only; new messages count from 1.", "gap");
    showMore(false, false);
  } else if (before - after > 1) {
    const lost = before - after - 1;
    const which = lost === 1 ? `Message #${after + 1} is` : `Messages #${after + 1} to #${before - 1} are`;
    log.note(`${which} gone: the room keeps its newest ${JSON.parse(limits).kept}.`, "gap");
  }
}

function showUnread(count) {
  unread = count;
  document.title = `${count ? `(${count}) ` : ""}#${room} · messagebus chat`;
}
document.addEventListener("visibilitychange", () => document.hidden || showUnread(0));

/* ---- earlier messages ---- */

function showMore(more, say = true) {
  const hadFocus = document.activeElement === $("earlier");
  $("earlier").hidden = more !== true;
  $("beginning").hidden = more === true || !say;
  $("beginning").textContent = log.oldest() > 1
    ? `The room keeps the newest ${JSON.parse(limits).kept} messages; this is the oldest.`
    : `This is where #${room} begins.`;
  if (hadFocus && more !== true) $("scroller").focus();
}

$("earlier").addEventListener("click", async () => {
  const button = $("earlier");
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    const response = await fetch(`${messages}?before=${log.oldest()}`, { signal: AbortSignal.timeout(10000) });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    log.addEarlier(answer.messages);
    button.textContent = "Load 50 earlier";
    showMore(answer.more);
  } catch {
    button.textContent = "That did not work. Try again";
  } finally {
    button.ariaBusy = "false";
  }
});

/* ---- the connection ---- */

let countdown = 0;

function showState(state, { transport, message, delay }) {
  if (noteState(state)) {
    lateCount = 0;
    lateLine = null;
  }
  if (state === "connected") resend();
  $("pill").dataset.state = state;
  $("via").textContent = state === "connected" ? LABELS[transport] : "";
  $("switch").textContent = state === "stopped" ? "Connect" : "Disconnect";
  if ($("state").textContent !== STATES[state]) {
    $("state").textContent = STATES[state];
    $("spoken").textContent = STATES[state]; // once for each state, and not at each attempt
  }
  clearInterval(countdown);
  const nextTry = performance.now() + (delay ?? 0);
  const tell = () => {
    const seconds = Math.ceil((nextTry - performance.now()) / 1000);
    const told = {
      reconnecting: `The connection is lost${seconds > 0 ? `; next try in ${seconds} s` : ""}. What is said meanwhile will arrive late.`,
      offline: "This device has no network. What is said meanwhile will arrive late.",
      stopped: "You have disconnected. What is said meanwhile will arrive when you connect.",
      connecting: message ? "The server cannot be reached yet." : "",
    }[state];
    $("notice").hidden = !told;
    $("notice").textContent = told ?? "";
  };
  tell();
  if (state === "reconnecting") countdown = setInterval(tell, 1000);
}

function choose(transport) {
  remember("transport", transport);
  MessageBus.stop();
  start();
}

for (const radio of document.querySelectorAll("#transports input")) {
  radio.checked = radio.value === (forced() ?? "automatic");
  radio.addEventListener("change", () => choose(radio.value));
}
$("switch").addEventListener("click", () => (MessageBus.state === "stopped" ? start() : MessageBus.stop()));

function showStats(milliseconds) {
  $("stats").hidden = false;
  $("count").textContent = delivered;
  $("delivered").textContent = `${delivered} message${delivered === 1 ? "" : "s"}`;
  $("position").textContent = MessageBus.diagnostics().channels[channel];
  if (milliseconds === undefined) return;
  $("latency").textContent = `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  $("trip").textContent = ` · ${$("latency").textContent}`;
}

bindNickname($("nickname"));
start();
