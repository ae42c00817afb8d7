// The message box: what is written goes to the server, and shows at once.
import * as log from "./log.js";
import { me, randomKey } from "./me.js";

const TIMEOUT = 10000; // milliseconds until a request that brings no answer has failed

const form = document.getElementById("composer");
const box = document.getElementById("text");
const url = document.body.dataset.messages;
const sentAt = new Map(); // key -> when it was sent, for those on their way
const unsent = new Map(); // element -> what it says, for those that did not reach the server
let last = Promise.resolve(); // the end of what is being sent

/* Milliseconds from sending to now, for a message that has come back; undefined where it is not one of ours. */
export function roundTrip(key) {
  const since = sentAt.get(key);
  sentAt.delete(key);
  return since === undefined ? undefined : performance.now() - since;
}

/* There is a connection again: send what did not get through. */
export function resend() {
  for (const [element, said] of [...unsent]) send(element, said);
}

/* One after another: of two requests that are under way at once, the second may be served first. */
function send(element, said) {
  unsent.delete(element);
  element.classList.add("pending");
  element.classList.remove("failed", "waiting");
  element.querySelector(".trouble")?.remove();
  last = last.then(() => post(element, said)).catch(console.error);
}

async function post(element, said) {
  sentAt.set(said.key, performance.now());
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(said),
      signal: AbortSignal.timeout(TIMEOUT),
    });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) return failed(element, said, answer.error ?? `the server answered ${response.status}`);
    if (answer.message_id === null) return wait(element);
    log.confirm(element, answer.message_id);
  } catch (error) {
    // It may have arrived all the same. Then the bus brings it, and sending it again shows nothing twice.
    unsent.set(element, said);
    const reason = error.name === "TimeoutError" ? "no answer came" : "the server cannot be reached";
    failed(element, said, `${reason}. It is sent again when there is a connection`);
  }
}

function trouble(element, ...parts) {
  if (element.dataset.id) return; // the bus was faster
  const line = document.createElement("p");
  line.className = "trouble";
  line.append(...parts);
  element.querySelector(".trouble")?.remove();
  element.querySelector(".bubble").append(line);
}

function wait(element) {
  element.classList.add("waiting");
  trouble(element, "The store is away. The server keeps the message until it is back.");
}

function failed(element, said, reason) {
  if (element.dataset.id) return void unsent.delete(element); // it had arrived
  sentAt.delete(said.key);
  element.classList.remove("pending");
  element.classList.add("failed");
  trouble(
    element,
    `Not sent: ${reason}. `,
    button("Retry", () => send(element, said)),
    button("Remove", () => {
      unsent.delete(element);
      log.remove(element);
      box.focus();
    }),
  );
}

function button(label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", action);
  return made;
}

function grow() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
  form.classList.toggle("filled", Boolean(box.value.trim()));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = box.value.trim();
  if (!text) return box.focus();
  const said = { author: me.author, key: randomKey(), name: me.name, text };
  send(log.addPending({ ...said, at: Date.now() }), said);
  box.value = "";
  grow();
  box.focus();
});

box.addEventListener("keydown", (event) => {
  // Not while an input method is choosing characters: its Enter is not ours.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
box.addEventListener("input", grow);

// Escape leads back to the message box, from anywhere but an open panel (which it closes).
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector(":popover-open")) box.focus();
});
// Not on phones, where the keyboard would cover half of the page unasked.
if (matchMedia("(hover: hover)").matches) box.focus();
