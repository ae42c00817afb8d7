// One connection after the other: opens what the plan says, takes what comes, and follows the channels.

import { Channels, positionsOf } from "./channels.js";
import { Delivery } from "./delivery.js";
import { Link, isPoll } from "./links/link.js";
import { Memory } from "./memory.js";
import { PageWatch } from "./page.js";
import { Plan } from "./plan.js";
import { QUERY_LIMIT, failure, parameters } from "./wire.js";

export class Client {
  running = false;
  #link = null; // the one connection or request; what an older one still says is ignored
  #told; // what onStateChange was told
  #retryTimer;
  #changeTimer;
  #sequence = 0;
  #calls = 0;

  /** `bus`: the settings, and what callbacks are given. */
  constructor(bus, environment) {
    this.settings = bus;
    this.environment = environment;
    this.channels = new Channels(() => this.changed());
    this.memory = new Memory(environment, () => bus.baseUrl);
    const fits = () => this.parameters(this.channels.followed).length <= QUERY_LIMIT;
    this.plan = new Plan(bus, environment, this.memory, fits);
    this.delivery = new Delivery({
      followed: this.channels.followed, isRunning: () => this.running, onGap: () => bus.onGap, guard: this.#guard,
    });
    this.page = new PageWatch(environment, {
      online: () => {
        this.plan.wentOnline();
        this.#wake(true); // over the new network
      },
      offline: () => {
        this.#drop();
        this.#take(this.plan.wentOffline());
      },
      hide: () => this.#drop(), // or the page is not kept for the back button
      wake: (force) => this.#wake(force),
      tick: () => this.#tick(),
    });
  }

  #guard = (what, fn, ...args) => {
    try {
      if (fn) fn(...args);
    } catch (error) {
      this.environment.log("error", `${what} threw`, error); // and the others get theirs
    }
  };

  #setState(state, info = {}) {
    const { plan, settings } = this, before = this.#told;
    plan.state = state;
    this.#told = state + plan.inUse;
    if (this.#told === before && !info.message) return;
    this.#guard("onStateChange", settings.onStateChange, state, { transport: plan.inUse, ...info });
  }

  parameters = (entries) => parameters(entries, this.channels.epoch, this.settings.grants);
  nextSequence = () => ++this.#sequence;

  // ---- what the page asks for ----

  start() {
    if (this.running) return;
    this.running = true;
    this.plan.start();
    this.page.start();
    this.#setState("connecting");
    this.delivery.drain();
    this.changed();
  }

  stop() {
    if (!this.running) return;
    this.running = false;
    this.plan.stop();
    this.#drop();
    this.page.stop();
    this.environment.clearTimer(this.#changeTimer);
    this.#setState("stopped");
  }

  resume() {
    const { delivery } = this;
    if (!delivery.paused) return;
    const wasFull = delivery.isFull;
    delivery.paused = false;
    delivery.drain();
    if (wasFull) this.changed();
  }

  publish(channel, data) {
    return new Promise((resolve, reject) => {
      const link = this.#link;
      if (!link?.send || !link.opened) return reject(failure("unsupported", "needs an open websocket"));
      link.calls.set(++this.#calls, { resolve, reject });
      link.send({ publish: { channel, data }, id: this.#calls });
    });
  }

  // ---- one connection after the other ----

  /** Uses the plan's transport; or, as a probe, one plain poll to learn whether the server is there. */
  #connect(probe = this.plan.wantsProbe) {
    this.#drop();
    const { channels, delivery, environment, memory, plan, settings } = this;
    if (!this.running || !channels.followed.size || delivery.isFull) return;
    const name = plan.attempt(probe), now = environment.now();
    if (isPoll(name)) {
      const ago = now - memory.lastPoll;
      if (environment.isHidden() && ago >= 0 && ago < settings.minHiddenPollInterval)
        return this.#connectLater(500 + environment.random() * 500, probe);
      memory.lastPoll = now;
    }
    this.#link = new Link(this, name, probe, new Map(channels.followed));
    this.#link.open();
  }

  #connectLater(ms, probe) {
    this.#retryTimer = this.environment.setTimer(() => this.#connect(probe), ms);
  }

  #drop() {
    const link = this.#link;
    this.#link = null;
    this.environment.clearTimer(this.#retryTimer);
    if (link) link.drop();
  }

  #take({ after, probe, info }) {
    if (after !== undefined) this.#connectLater(after, probe);
    if (info) this.#setState(this.plan.trouble, info);
    if (after === undefined) this.#connect(probe);
  }

  // ---- what links tell ----

  isCurrent(link) {
    return this.#link === link;
  }

  opened(link) {
    if (!this.plan.opened(link)) return;
    link.clearDeadline();
    if (!link.probe) this.#setState("connected");
  }

  receive(link, batch) {
    const { channels, delivery, plan } = this;
    const { deliveries, progress, carried } = channels.accept(batch, link.asked);
    link.sawBytes();
    this.opened(link);
    link.progress ||= progress;
    link.carried ||= carried;
    if (link.carried) plan.carried();
    delivery.put(deliveries);
    delivery.drain();
    if (delivery.paused && delivery.isFull) this.#drop();
  }

  ended(link, problem) {
    this.#drop();
    const step = this.plan.ended(link, problem);
    if (step.info?.refused) {
      const level = step.info.status === 403 ? "warn" : "error";
      this.environment.log(level, "the server refused", [...this.channels.followed.keys()], problem.message);
    }
    this.#take(step);
  }

  // ---- channels come and go ----

  changed = () => {
    this.environment.clearTimer(this.#changeTimer);
    // Many subscribes in a row make one request.
    if (this.running) this.#changeTimer = this.environment.setTimer(() => this.#apply(), 0);
  };

  #apply() {
    const { channels, plan, settings } = this, link = this.#link;
    if (!channels.followed.size) return this.#drop();
    if (!link) return plan.waitsForChannels ? this.#connect() : undefined;
    const { added, removed } = channels.compare(link.asked);
    if (!added.length && !removed.length) return;
    // Left and followed anew: on one connection old and new messages could not be told apart.
    if (link.name !== "websocket" || added.some(([channel]) => link.asked.has(channel))) return this.#connect(link.probe);
    if (!link.opened) return; // it comes here again when it is
    for (const channel of removed) link.asked.set(channel, null);
    for (const one of added) link.asked.set(...one);
    if (removed.length) link.send({ unsubscribe: removed });
    if (added.length) link.send({ subscribe: positionsOf(added), grants: settings.grants[0] && settings.grants });
  }

  // ---- the page and the clock ----

  #wake(force) {
    const { environment, plan, settings } = this, now = environment.now(), link = this.#link;
    if (now < plan.notBefore) return;
    if (!force && link && now - link.heard <= settings.heartbeatTimeout) return;
    plan.failures = 0;
    this.#connect();
  }

  #tick() {
    const now = this.environment.now(), link = this.#link;
    if (link?.opened && now - link.heard > this.settings.heartbeatTimeout) link.ended({ message: "no heartbeat" });
    else if (this.plan.isBetterDue(now)) this.#connect();
  }
}
