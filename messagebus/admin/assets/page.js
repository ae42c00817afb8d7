// The admin page. What it shows comes from the bus over an EventSource, every two seconds; all of it is text of others, and is
// only ever put into text nodes.

const SAMPLES = 60;
const KEPT_LINES = 200; // of what a client is sent
const $ = (id) => document.getElementById(id);

const shown = { channel: null, site: null, tapped: null };
const rates = new Map(); // channel or tile -> {last, at, values}
let source, later;

// ---- elements ----

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const number = (value) => (value ?? 0).toLocaleString("en", { maximumFractionDigits: 1 });
const cell = (text, className = "") => make("td", { className }, text ?? "");

function ago(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

/** Shows a row for each item. A row that was there stays, and its cells change: whoever is about to press its button still can. */
function fill(body, items, keyOf, rowOf) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const row = rowOf(item), key = keyOf(item), before = old.get(key);
    old.delete(key); // should a key come twice
    row.dataset.key = key;
    before?.querySelectorAll("td").forEach((td, index) => td.replaceChildren(...row.querySelectorAll("td")[index].childNodes));
    return before ?? row;
  });
  if (rows.length !== body.children.length || rows.some((row, index) => row !== body.children[index])) body.replaceChildren(...rows);
}

/** The rate of a number that grows, a second. */
function rate(key, value, at) {
  const known = rates.get(key);
  if (!known) {
    rates.set(key, { last: value, at, values: [0] });
    return 0;
  }
  const now = at > known.at ? Math.max(0, value - known.last) / (at - known.at) : 0;
  rates.set(key, { last: value, at, values: [...known.values, now].slice(-SAMPLES) });
  return now;
}

function chart(key) {
  const values = rates.get(key)?.values ?? [];
  const top = Math.max(...values, 1e-9), step = 100 / (SAMPLES - 1);
  const left = 100 - (values.length - 1) * step;
  const points = values.map((value, index) => `${(left + index * step).toFixed(1)},${(23 - 21 * (value / top)).toFixed(1)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(svg.namespaceURI, "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

// ---- what comes ----

function show({ stats, channels, has_more_channels, clients, matching_clients }) {
  const at = performance.now() / 1000;
  showAway(stats.partitions_away ?? []);
  showTiles(stats, at);
  fill($("channels"), channels, ({ channel, site }) => `${channel} ${site ?? ""}`, (one) => {
    const key = `channel ${one.channel} ${one.site ?? ""}`;
    const now = rate(key, one.published_messages, at);
    const name = make("button", { className: "link", onclick: () => openChannel(one.channel, one.site) }, one.channel);
    return make("tr", {},
      make("th", { scope: "row" }, name, one.site === null ? "" : make("small", {}, ` ${one.site}`)),
      make("td", { className: "chart" }, chart(key), make("span", {}, number(now))),
      cell(number(one.stored_messages), "number"), cell(number(one.published_messages), "number"), cell(number(one.subscribers), "number"));
  });
  $("channels-note").textContent = has_more_channels ? `There are more than these ${channels.length}: say what they begin with.`
    : channels.length ? "" : "No channel has stored messages here.";
  fill($("clients"), clients, ({ client_id }) => client_id, clientRow);
  $("clients-note").textContent = matching_clients > clients.length ? `${number(clients.length)} of ${number(matching_clients)} are shown.`
    : clients.length ? "" : "Nobody is connected.";
  fill($("workers"), stats.by_worker, ({ worker }) => worker, (one) => make("tr", {},
    make("th", { scope: "row" }, one.hostname ?? ""), cell(String(one.pid ?? ""), "number"), cell(ago(one.uptime)),
    cell(number(one.subscribers), "number"), cell(number(one.delivered), "number"), cell(number(one.slow), "number"),
    cell(number(one.waiting_bytes), "number"), cell(number(one.store_seconds * 1000), "number")));
  for (const key of rates.keys())
    if (rates.get(key).at !== at) rates.delete(key);
  if (shown.channel !== null) showMessages();
}

function clientRow(one) {
  const watch = make("button", { className: "link", title: "Show what it is sent", onclick: () => tap(one.client_id) }, one.client_id);
  const behind = one.catches_up ? "catching up" : one.waiting_bytes ? `${number(one.waiting_bytes)} B` : "–";
  const rest = one.channels - one.named.length;
  return make("tr", {},
    make("th", { scope: "row" }, watch), cell(one.user_id ?? "–"), cell(one.address || "–"), cell(one.transport),
    cell(ago(Date.now() / 1000 - one.since)), cell(one.named.join(", ") + (rest > 0 ? ` and ${rest} more` : ""), "wide"), cell(behind, "number"));
}

function showAway(partitions) {
  const text = partitions.length ? `This is not all: these partitions of the store give no answer: ${partitions.join(", ")}.` : "";
  if (text === $("away").textContent) return; // said once
  $("away").textContent = text;
  $("away").hidden = !text;
  rates.delete("tile published_messages"); // of other partitions
}

function showTiles(stats, at) {
  const perSecond = (key) => rate(`tile ${key}`, stats[key], at);
  const tiles = [
    ["Subscribers", number(stats.subscribers), Object.entries(stats.by_transport).map(([name, count]) => `${name} ${count}`).join(", ")],
    ["Published a second", number(perSecond("published_messages")), chart("tile published_messages")],
    ["Delivered a second", number(perSecond("delivered")), chart("tile delivered")],
    ["Bytes a second", number(perSecond("bytes")), chart("tile bytes")],
    ["Slow readers cut", number(stats.slow), `${number(stats.waiting_bytes)} B wait`],
    ["Gaps told", number(stats.gaps), `${number(stats.catch_ups)} catch-ups`],
    ["Store round trip", `${number(stats.store_round_trip * 1000)} ms`, `${number(stats.queued_publishes)} publishes wait`],
    ["Workers", number(stats.workers), `up for ${ago(stats.uptime)}`],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value, more]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, make("strong", {}, value), make("span", { className: "more" }, more)))));
}

function listen() {
  source?.close();
  clearTimeout(later);
  const query = new URLSearchParams({ channels: $("channels-filter").value, clients: $("clients-filter").value });
  if (shown.tapped) query.set("tap", shown.tapped);
  source = new EventSource(`admin/events?${query}`);
  source.onmessage = ({ data }) => {
    $("state").textContent = "live";
    $("state").className = "live";
    for (const { channel, data: value } of JSON.parse(data)) {
      if (channel !== "/admin") continue;
      if (value.tapped) showSent(value.tapped);
      else if (value.trouble) problem(value.trouble);
      else show(value);
    }
  };
  source.onerror = () => {
    problem("not connected");
    if (source.readyState === EventSource.CLOSED) later = setTimeout(check, 3000);
  };
}

/** The server has refused: who is no longer signed in gets the form, the others try again. */
async function check() {
  const { status } = await fetch("admin/messages?channel=/a").catch(() => ({}));
  if (status === 401 || status === 403) location.reload();
  else listen();
}

function problem(text) {
  $("state").textContent = text;
  $("state").className = "";
}

// ---- one channel ----

function openChannel(channel, site) {
  Object.assign(shown, { channel, site });
  $("channel-title").textContent = site === null ? channel : `${channel} (${site})`;
  $("published").textContent = "";
  $("messages").replaceChildren();
  $("channel").hidden = false;
  showMessages();
  $("data").focus();
}

async function showMessages() {
  const { channel, site } = shown;
  const query = new URLSearchParams({ channel, site: site ?? "" });
  const answer = await fetch(`admin/messages?${query}`).catch(() => null);
  if (!answer || channel !== shown.channel || site !== shown.site) return;
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({}));
    $("messages-note").textContent = error?.message ?? "No answer came.";
    return;
  }
  const { messages, last_id, kept } = await answer.json();
  $("messages-note").textContent = !last_id ? "There has been no message yet."
    : messages.length < kept ? `The newest ${messages.length} of ${number(kept)} that are kept.` : "";
  $("messages").replaceChildren(...messages.map((one) => make("li", {},
    make("span", { className: "id" }, `${one.message_id}`),
    make("code", {}, one.data + (one.is_cut ? " …" : "")),
    one.is_targeted ? make("small", {}, "for some clients only") : "")));
}

async function publish(event) {
  event.preventDefault();
  let data = $("data").value;
  try {
    data = JSON.parse(data);
  } catch {} // a text
  const answer = await fetch("admin/publish", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ channel: shown.channel, data, site: shown.site }),
  }).catch(() => null);
  const { message_id, error } = (await answer?.json().catch(() => null)) ?? { error: { message: "no answer came" } };
  $("published").textContent = error ? error.message : message_id === null ? "It waits for the store." : `Published as ${message_id}.`;
  if (!error) $("data").value = "";
  showMessages();
}

// ---- one client ----

function tap(clientId) {
  shown.tapped = clientId;
  $("tap").hidden = clientId === null;
  $("tap-title").textContent = clientId === null ? "" : `What ${clientId} is sent`;
  $("sent").replaceChildren();
  $("tap-note").hidden = false;
  listen();
  if (clientId !== null) $("tap-close").focus();
}

function showSent({ sent, left_out }) {
  $("tap-note").hidden = true;
  const lines = sent.map(({ at, transport, bytes, text, is_cut }) => make("div", { className: "row" },
    make("span", { className: "id" }, new Date(at * 1000).toLocaleTimeString()),
    make("code", {}, text + (is_cut ? " …" : "")), make("small", {}, `${transport}, ${number(bytes)} B`)));
  if (left_out) lines.push(make("div", { className: "row" }, make("small", {}, `${number(left_out)} more were left out`)));
  $("sent").append(...lines);
  while ($("sent").children.length > KEPT_LINES) $("sent").firstChild.remove();
  $("sent").scrollTop = $("sent").scrollHeight;
}

// ---- begin ----

for (const id of ["channels-filter", "clients-filter"])
  $(id).oninput = () => {
    clearTimeout(later);
    later = setTimeout(listen, 400);
  };
$("publish").onsubmit = publish;
$("open").onsubmit = (event) => {
  event.preventDefault();
  if ($("channels-filter").value) openChannel($("channels-filter").value, null);
};
$("channel-close").onclick = () => {
  shown.channel = null;
  $("channel").hidden = true;
};
$("tap-close").onclick = () => tap(null);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", ({ persisted }) => persisted && listen());
listen();
