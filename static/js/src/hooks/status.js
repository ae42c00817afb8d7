// messagebus-status: an element that says how the connection is, where there is something to say.
//
//   <messagebus-status></messagebus-status>
//
// It is empty while all is well; with the attribute `always` it also says "connected". Texts can be replaced by attributes:
// text-reconnecting="…". It has no style of its own; [state="offline"] and its like select it.

import { MessageBus } from "#bus";

const TEXTS = {
  connected: "connected", connecting: "connecting", reconnecting: "reconnecting", offline: "offline",
  refused: "not allowed", retry: "retry", wait: "in {seconds} s",
};

export class MessageBusStatus extends HTMLElement {
  /** The bus that it is of; that of the page, unless it is given another before it is put in. */
  bus = MessageBus;
  #off;
  #timer;
  #due; // ms, when the next attempt is; undefined where none waits
  #text;
  #button;

  connectedCallback() {
    if (!this.#text) {
      this.#text = document.createElement("span");
      this.#text.setAttribute("role", "status");
      this.#button = document.createElement("button");
      this.#button.type = "button";
      this.#button.addEventListener("click", () => this.bus.retry());
      this.append(this.#text, " ", this.#button);
    }
    this.#off = this.bus.on("state", (state, { delay }) => this.#changed(delay));
    this.#changed(this.bus.diagnostics().nextAttempt);
  }

  disconnectedCallback() {
    this.#off();
    clearInterval(this.#timer);
  }

  #changed(delay) {
    this.#due = delay == null ? undefined : performance.now() + delay;
    clearInterval(this.#timer);
    if (delay > 1000) this.#timer = setInterval(() => this.#draw(), 1000);
    this.#draw();
  }

  #words(name) {
    return this.getAttribute(`text-${name}`) || TEXTS[name];
  }

  #draw() {
    const { state } = this.bus;
    this.setAttribute("state", state);
    const isQuiet = ["stopped", "idle"].includes(state) || (state === "connected" && !this.hasAttribute("always"));
    const seconds = Math.ceil((this.#due - performance.now()) / 1000);
    const wait = seconds > 1 ? ` ${this.#words("wait").replace("{seconds}", seconds)}` : "";
    const text = isQuiet ? "" : this.#words(state) + wait;
    if (this.#text.textContent !== text) this.#text.textContent = text;
    this.#button.textContent = this.#words("retry");
    this.#button.hidden = isQuiet || state === "connected" || (!wait && state !== "refused");
  }
}

if (!customElements.get("messagebus-status")) customElements.define("messagebus-status", MessageBusStatus);
