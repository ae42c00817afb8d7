// The room: follows its channel, and says what becomes of the connection. MessageBus is set by the script of the page's head.
import "./composer.js";
import "./page.js";
import { roundTrip } from "./composer.js";
import * as log from "./log.js";
import { bindNickname, me, recall, remember } from "./me.js";

const LABELS = {
  websocket: "WebSocket", eventsource: "EventSource", streaming: "Streaming", "long-polling": "Long-polling", polling: "Polling",
};
const STATES = {
  connecting: "Connecting", connected: "Connected", reconnecting: "Reconnecting", offline: "Offline", stopped: "Disconnected",
};
const { room, channel, messages, now, limits } = document.body.dataset;
const UNSURE = 250; // milliseconds; no better is known how the two clocks differ
const $ = (id) => document.getElementById(id);

/* ---- messages ---- */

let delivered = 0;
let unread = 0;
let away = 0; // when the connection broke, by the server's clock; 0 while there is one
let backAt = 0; // when it stood again
let lateLine = null, lateCount = 0;
// How far this clock is ahead of the server's, and the time the page took to get here. Messages that come faster correct it.
const [navigation] = performance.getEntriesByType("navigation");
let ahead = performance.timeOrigin + navigation.responseStart - Number(now);
const serverTime = () => Date.now() - ahead;

MessageBus.subscribe(channel, (data, globalId, messageId) => {
  // Other programs may publish here as well, and whatever they like.
  const said = data && typeof data === "object" ? data : { text: data };
  const at = said.at > 0 && said.at < 1e14 ? Number(said.at) : null;
  if (at) ahead = Math.min(ahead, Date.now() - at);
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");
  const own = said.author === me.author;
  // While the connection is down, the client asks now and then, and may get them by that.
  const late = !own && (away > 0 || (at !== null && at < backAt + UNSURE));
  delivered++;
  if (late) countLate();
  log.add({
    author: text(said.author ?? ""), key: text(said.key ?? ""), name: text(said.name || "somebody"), text: text(said.text),
    at, id: messageId, global_id: globalId,
  }, { late });
  if (document.hidden && !own) showUnread(unread + 1);
  showStats(own ? roundTrip(said.key) : undefined);
});

function countLate() {
  lateCount++;
  lateLine ??= log.note("", "caught");
  lateLine.firstChild.textContent = `Caught up: ${lateCount} message${lateCount === 1 ? "" : "s"} from while you were away`;
}

MessageBus.onGap = (_, { after, before }) => {
  if (after === null) {
    log.makeOld();
    log.note("The server's store began anew. What stands above is kept by this page alone; new messages count from 1.", "gap");
    showMore(false, false);
  } else if (before - after > 1) {
    const lost = before - after - 1;
    const which = lost === 1 ? `Message #${after + 1} is` : `Messages #${after + 1} to #${before - 1} are`;
    log.note(`${which} gone: the room keeps its newest ${JSON.parse(limits).kept}.`, "gap");
  }
};

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

MessageBus.onStateChange = (state, { transport, message, delay }) => {
  if (state === "connected" && away) {
    backAt = serverTime();
    away = 0;
  } else if (!away && ["reconnecting", "offline", "stopped"].includes(state)) {
    away = serverTime();
    lateCount = 0;
    lateLine = null;
  }
  $("pill").dataset.state = state;
  // Only where it changes, or screen readers would say it at each attempt.
  if ($("state").textContent !== STATES[state]) $("state").textContent = STATES[state];
  const via = state === "connected" ? LABELS[transport] : "";
  if ($("via").textContent !== via) $("via").textContent = via;
  $("switch").textContent = state === "stopped" ? "Connect" : "Disconnect";
  const seconds = Math.max(1, Math.round((delay ?? 0) / 1000));
  const told = {
    reconnecting: `The connection is lost${delay ? `; next try in ${seconds} s` : ""}. What is said meanwhile will arrive late.`,
    offline: "This device has no network. What is said meanwhile will arrive late.",
    stopped: "You have disconnected. What is said meanwhile will arrive when you connect.",
    connecting: message ? "The server cannot be reached yet." : "",
  }[state];
  $("notice").hidden = !told;
  $("notice").textContent = told ?? "";
};

const forced = () => (recall("transport") in LABELS ? recall("transport") : null);
const start = () =>
  MessageBus.start({ transports: forced() ? [forced()] : Object.keys(LABELS), callbackInterval: 2000 });

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
