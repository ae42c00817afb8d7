// The list of messages: in order, each once, and where the reader looks. Text goes in as text, never as HTML.
import { me } from "./me.js";

const TOGETHER = 3 * 60 * 1000; // milliseconds; messages of one author that are closer stand together
const CLOSE = 60; // pixels from the end that still count as at the end

const scroller = document.getElementById("scroller");
const list = document.getElementById("log");
const pattern = document.getElementById("message").content.firstElementChild;
const newer = document.getElementById("newer");
const empty = document.getElementById("empty");

const byKey = new Map(); // author and key -> element
let unseen = 0;
let pinned = true; // at the end, and to be kept there
let wasAt = 0; // where the reader looked, in pixels from above

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const identity = (author, key) => `${author} ${key}`;
const messages = () => list.querySelectorAll(".message");

/* ---- one message ---- */

/* Addresses become links; the rest stays text. */
function link(paragraph) {
  const parts = paragraph.textContent.split(/(https?:\/\/[^\s<>"]+[^\s<>".,:;!?)\]}'])/);
  if (parts.length < 2) return;
  paragraph.replaceChildren(...parts.map((part, index) => {
    if (index % 2 === 0) return part;
    const anchor = document.createElement("a");
    Object.assign(anchor, { href: part, textContent: part, target: "_blank", rel: "noopener noreferrer nofollow" });
    return anchor;
  }));
}

function dress(element) {
  const { author = "", at } = element.dataset;
  const name = element.querySelector(".name").textContent;
  const avatar = element.querySelector(".avatar");
  avatar.textContent = [...name.trim()][0]?.toUpperCase() ?? "?";
  avatar.dataset.hue = (parseInt(author.slice(0, 4), 16) || 0) % 8;
  element.classList.toggle("own", author === me.author);
  const clock = element.querySelector("time");
  const said = Number(at ?? clock.dataset.at);
  if (said) {
    const date = new Date(said);
    element.dataset.at = said;
    clock.dateTime = date.toISOString();
    clock.textContent = (date.toDateString() === new Date().toDateString() ? time : dayAndTime).format(date);
    clock.title = whole.format(date);
  }
  link(element.querySelector(".text"));
  if (element.dataset.key) byKey.set(identity(author, element.dataset.key), element);
}

function make({ author, key, name, text, at }) {
  const element = pattern.cloneNode(true);
  Object.assign(element.dataset, { author, key, at: at ?? "" });
  element.querySelector(".name").textContent = name;
  element.querySelector(".text").textContent = text;
  dress(element);
  return element;
}

function number(element, id, globalId) {
  element.dataset.id = id;
  element.id = `m${id}`;
  const link = element.querySelector(".id");
  link.href = `#m${id}`;
  link.querySelector(".local").textContent = `#${id}`;
  if (globalId) link.querySelector(".global").textContent = ` global ${globalId}`;
}

/* Whether it continues what the one before it began; also for the one after it, whose neighbour has changed. */
function group(element) {
  for (const one of [element, element?.nextElementSibling]) {
    if (!one?.matches(".message")) continue;
    const before = one.previousElementSibling;
    const same =
      before?.matches(".message") &&
      before.classList.contains("late") === one.classList.contains("late") &&
      before.dataset.author === one.dataset.author &&
      before.querySelector(".name").textContent === one.querySelector(".name").textContent &&
      Math.abs(Number(one.dataset.at) - Number(before.dataset.at)) < TOGETHER;
    one.classList.toggle("follows", Boolean(same));
  }
}

/* Before the first that comes later: those with a higher number, and those that have none yet. */
function place(element, id) {
  let after = list.lastElementChild;
  while (after && after !== element && after.matches(".message:not(.old)") && !(Number(after.dataset.id) < id))
    after = after.previousElementSibling;
  if (after === element) return group(element); // only those without a number stand behind it
  const left = element.nextElementSibling;
  if (after) after.after(element);
  else list.prepend(element);
  group(element);
  group(left);
}

/* ---- what the page does with it ---- */

/* A message that the bus brought. Returns the element, or null where the page has it already. */
export function add(said, { late = false } = {}) {
  const known = said.key ? byKey.get(identity(said.author, said.key)) : undefined;
  const numbered = known?.dataset.id;
  if (numbered && Number(numbered) !== said.id) return null; // it was sent twice: the first one counts
  const element = known ?? make(said);
  number(element, said.id, said.global_id);
  element.classList.remove("old");
  element.querySelector(".tag").hidden = !late;
  element.classList.toggle("late", late);
  settle(element);
  place(element, said.id);
  empty.hidden = true;
  if (!known && !pinned && !element.matches(".own")) unseen++;
  showNewer();
  return element;
}

/* One's own message, before the server has it. */
export function addPending(said) {
  const element = make(said);
  element.classList.add("pending");
  list.append(element);
  group(element);
  empty.hidden = true;
  toEnd();
  return element;
}

/* The server has it. The bus brings it as well, sooner or later. */
export function confirm(element, id) {
  if (element.dataset.id) return;
  number(element, id);
  settle(element);
  place(element, id);
}

function settle(element) {
  element.classList.remove("pending", "failed", "waiting");
  element.querySelector(".trouble")?.remove();
}

export function remove(element) {
  const next = element.nextElementSibling;
  byKey.delete(identity(element.dataset.author, element.dataset.key));
  element.remove();
  group(next);
  empty.hidden = list.childElementCount > 0;
}

/* Earlier ones, in order, above all others. The reader goes on looking at what is being read. */
export function addEarlier(earlier) {
  const first = list.firstElementChild, from = scroller.scrollHeight - scroller.scrollTop;
  list.parentElement.setAttribute("aria-live", "off"); // nobody wants fifty old messages read out
  for (const said of earlier) {
    const known = said.key ? byKey.get(identity(said.author, said.key)) : undefined;
    if (known?.dataset.id) continue;
    known?.remove(); // an old one that the new store has as well
    const element = make(said);
    number(element, said.id, said.global_id);
    list.insertBefore(element, first);
    group(element);
  }
  scroller.scrollTop = scroller.scrollHeight - from;
  setTimeout(() => list.parentElement.removeAttribute("aria-live"), 1000);
}

/* A line across the list. */
export function note(text, kind) {
  const line = document.createElement("li");
  line.className = `note ${kind}`;
  const inner = document.createElement("span");
  inner.textContent = text;
  line.append(inner);
  list.insertBefore(line, list.querySelector(".message:not([data-id], .old)")); // those on their way stay last
  empty.hidden = true;
  return line;
}

/* What stands here is of a store that is gone: its numbers mean nothing any more. */
export function makeOld() {
  for (const element of messages()) {
    if (!element.dataset.id) continue;
    element.classList.add("old");
    element.removeAttribute("id");
    delete element.dataset.id;
    element.querySelector(".id").removeAttribute("href");
    // Its key stays known: the new store may have it already, as one's own message that was answered before the bus came.
  }
}

export const oldest = () => Number(list.querySelector(".message[data-id]")?.dataset.id) || 0;

/* ---- where the reader looks ---- */

export function toEnd() {
  pinned = true;
  unseen = 0;
  showEnd();
  showNewer();
}

function showEnd() {
  scroller.scrollTop = scroller.scrollHeight;
  wasAt = scroller.scrollTop;
}

function showNewer() {
  newer.hidden = pinned || !unseen;
  newer.textContent = `${unseen} new message${unseen === 1 ? "" : "s"} ↓`;
}

scroller.addEventListener("scroll", () => {
  const upwards = scroller.scrollTop < wasAt;
  wasAt = scroller.scrollTop;
  // Only who scrolls up leaves the end: when a page hears that it has moved itself there, more may have come below.
  if (scroller.scrollHeight - wasAt - scroller.clientHeight < CLOSE) pinned = true;
  else if (upwards) pinned = false;
  if (pinned) unseen = 0;
  showNewer();
}, { passive: true });
newer.addEventListener("click", () => {
  toEnd();
  document.getElementById("text").focus();
});
// New messages, the keyboard of a phone, a taller message box: the end stays in sight. Once a frame, however many came.
const sizes = new ResizeObserver(() => pinned && showEnd());
sizes.observe(scroller);
sizes.observe(list);

for (const element of messages()) {
  dress(element);
  group(element);
}
if (location.hash.startsWith("#m")) {
  // By hand: the browser went there before the list had its final shape.
  document.getElementById(location.hash.slice(1))?.scrollIntoView({ block: "center" });
  pinned = false;
} else toEnd();
