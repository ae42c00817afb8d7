// One connection or request, from its opening to its end. What it says after its end is ignored.

import { failure } from "../wire.js";
import { openEventSource } from "./eventsource.js";
import { openPoll } from "./poll.js";
import { openWebSocket } from "./websocket.js";

const OPEN = {
  websocket: openWebSocket, eventsource: openEventSource, streaming: openPoll, "long-polling": openPoll, polling: openPoll,
};

export const isPoll = (name) => OPEN[name] === openPoll;

export class Link {
  opened = false;
  greeting = false;
  plain = false;
  progress = false;
  carried = false;
  close = undefined;
  /** Sends a command; only WebSockets have it. */
  send = undefined;
  calls = new Map(); // commands that wait for their answer, by id
  #client;
  #timer;

  /** `asked`: channel -> entry, what it follows; null for a channel that was left since. `probe`: only asks if the server is there. */
  constructor(client, name, probe, asked) {
    this.#client = client;
    this.name = name;
    this.probe = probe;
    this.asked = asked;
    this.since = this.heard = client.environment.now();
  }

  open() {
    try {
      OPEN[this.name](this, this.#client);
    } catch (error) {
      this.ended({ message: String(error) });
    }
  }

  isCurrent() {
    return this.#client.isCurrent(this);
  }

  /** Ends it without a word to the plan. */
  drop() {
    this.clearDeadline();
    if (this.close) this.close();
    for (const call of this.calls.values()) call.reject(failure("disconnected", "no answer came"));
  }

  clearDeadline() {
    this.#client.environment.clearTimer(this.#timer);
  }

  /** It has failed unless something comes within `ms`. */
  deadline(ms) {
    this.clearDeadline();
    if (!this.isCurrent()) return;
    this.#timer = this.#client.environment.setTimer(() => this.ended({ message: `nothing came for ${ms} ms` }), ms);
  }

  sawBytes() {
    this.heard = this.#client.environment.now();
  }

  /** The first sign of life; may be repeated. */
  spoke() {
    this.#client.opened(this);
  }

  receive(batch) {
    if (this.isCurrent()) this.#client.receive(this, batch);
  }

  /** Text that is a batch, or an answer to a command. */
  take(text) {
    try {
      const body = JSON.parse(text);
      if (this.send && !Array.isArray(body)) this.#answered(body);
      else this.receive(body);
    } catch (error) {
      this.ended({ message: String(error) });
    }
  }

  #answered({ id, ok, error }) {
    this.sawBytes();
    const call = this.calls.get(id);
    this.calls.delete(id);
    if (error && !call) this.#client.environment.log("warn", "the server refused", error);
    else if (error) call.reject(failure(error.code, error.message));
    else if (call) call.resolve(ok);
  }

  /** In good order, or with a problem: {message, status, retryAfter}. */
  ended(problem) {
    if (this.isCurrent()) this.#client.ended(this, problem);
  }
}
