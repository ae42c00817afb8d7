// Opens what the plan says, takes what comes, and tells the page. At most two links are there at a time: the one in use, and
// beside it the trial of a better transport.

import { makeChannels, positionsOf } from "./channels.js";
import { makeDelivery } from "./delivery.js";
import { makeFollowing } from "./following.js";
import { isPoll, makeLink } from "./links/link.js";
import { makeMemory } from "./memory.js";
import { watchPage } from "./page.js";
import { makePlan } from "./plan.js";
import { nextState } from "./states.js";
import { QUERY_LIMIT, failure, parameters } from "./wire.js";

const PING_TIMEOUT = 3000; // ms
const SLEPT = 1000; // ms
const TRUSTED = 30000; // ms of silence, a heartbeat and a bit, after which what cannot be asked is replaced

/** `bus`: the settings. `emit(event, ...)`: tells the page. */
export function makeClient(bus, environment, emit) {
  const { clearTimer, isHidden, log, now, random, setTimer, wallClock } = environment;
  let wasConnected = false, told;
  let link = null, side = null; // in use, or to be; beside it
  let asked = new Map();
  let timer, nextAt; // of the next attempt
  let attempts = 0, sequence = 0, lastProblem;
  let isAway = false; // put away for the back button

  const guard = (what, fn, ...args) => {
    try {
      return fn(...args);
    } catch (error) {
      log("error", `${what} threw`, error); // and the others get theirs
    }
  };

  const trace = (...what) => {
    if (bus.debug) log("log", new Date(wallClock()).toISOString().slice(11, 23), `#${attempts}`, ...what);
  };

  function move(event, info = {}) {
    const { transport } = client, state = (client.state = nextState(client.state, event, wasConnected));
    wasConnected = client.running && (wasConnected || state === "connected");
    const isNews = told !== (told = state + transport);
    if (info.message) lastProblem = { ...info, at: wallClock() };
    if (!isNews && !info.message) return;
    trace(state, transport, info);
    emit("state", state, { transport, ...info });
  }

  const memory = makeMemory(environment, () => bus.baseUrl);
  const channels = makeChannels({ changed: () => following.changed(), refused: (...args) => following.refused(...args) });
  const queryFits = () => {
    const entries = channels.wanted().map((entry) => [entry.channel, entry]);
    return parameters(entries, channels.epoch, bus.grants).length <= QUERY_LIMIT;
  };
  const plan = makePlan({ settings: bus, environment, memory, queryFits, guard });
  const delivery = makeDelivery({
    isFollowed: channels.isFollowed, isRunning: () => client.running, onGap: (...args) => emit("gap", ...args), guard,
  });

  // ---- attempts ----

  function drop() {
    clearTimer(timer);
    for (const one of [link, side]) if (one) one.drop();
    timer = link = side = null;
  }

  /** There is nothing to do. */
  function rest() {
    drop();
    asked = new Map();
    move("rest");
  }

  function connectLater(ms, probe) {
    clearTimer(timer);
    nextAt = now() + ms;
    timer = setTimer(() => connect(probe), ms);
  }

  function open(name, role) {
    const one = makeLink(client, name, role, channels.ask(role !== "trial"));
    trace(role, name);
    return one;
  }

  /** Uses the plan's transport; or, as a probe, one plain poll to learn whether the server is there. */
  function connect(probe = plan.wantsProbe) {
    drop();
    if (!client.running) return;
    if (!channels.wanted()[0] || delivery.isFull()) return rest();
    move("follow");
    if (!client.running || link) return; // a listener has stopped it, or connected it
    const name = probe ? "polling" : plan.choose();
    if (isPoll(name)) {
      if (isHidden() && memory.sinceLastPoll() < bus.minHiddenPollInterval) return connectLater(500 + random() * 500, probe);
      memory.polled();
      following.paced();
    }
    attempts++;
    link = open(name, probe ? "probe" : "main");
    asked = link.asked;
    link.open();
  }

  function take({ after, probe, event, info }) {
    const before = link;
    if (after !== undefined) connectLater(after, probe);
    if (event) move(event, info);
    if (after === undefined && link === before) connect(probe);
  }

  // ---- what links tell ----

  function receive(one, batch) {
    const isFirst = one.openedAt === undefined;
    if (isFirst) {
      one.openedAt = now();
      if (one === side) {
        // The better one works, and takes over.
        if (link) link.drop();
        clearTimer(timer);
        [link, side, timer, asked] = [one, null, null, one.asked];
        one.role = "main";
        plan.use(one.name);
      }
      if (!one.isProbe) {
        client.transport = one.name;
        plan.opened(one);
      }
    } else if (plan.isSettled(one)) plan.settled(one);
    const { progress, reconnect } = channels.accept(batch, one.asked, delivery.put);
    one.progress ||= progress;
    one.reconnect = reconnect ?? one.reconnect;
    if (isFirst) {
      for (const asked of one.asked.values()) channels.joined(asked);
      if (!one.isProbe) move("open");
    }
    delivery.drain();
    if (delivery.paused && delivery.isFull()) rest();
  }

  function ended(one, problem) {
    one.drop();
    if (problem) trace(one.role, one.name, problem.message);
    if (one === side) {
      side = null;
      return memory.leave(one.name);
    }
    link = null;
    if (problem && following.refusedAsWhole(one, problem)) return connect(one.isProbe);
    if (problem && side) {
      // What is tried beside it goes on in its place.
      [link, side, asked] = [side, null, side.asked];
      link.role = "main";
      plan.use(link.name);
      return move("fail", problem);
    }
    const step = plan.ended(one, problem);
    if (step.event === "refuse") {
      const names = channels.wanted().map(({ channel }) => channel);
      log(problem.status === 403 ? "warn" : "error", "the server refused", names, problem.message);
    }
    take(step);
  }

  // ---- the page and the clocks ----

  /** `lost`: ms that the page was asleep. `force`: what is open is not to be trusted. */
  function wake({ lost = 0, force = false }) {
    isAway = false;
    if (!client.running || now() < plan.notBefore) return ensure();
    const silence = link ? Math.max(now() - link.heard, lost) : Infinity;
    // A socket can be asked. What cannot is replaced, where it may have died; a poll that is not held comes at once.
    const isDoubtful = link?.plain ? !lost : !link?.send && (lost > SLEPT || silence > TRUSTED);
    if (force || isDoubtful || silence > bus.heartbeatTimeout) again();
    else if (link.send && link.openedAt !== undefined) {
      link.send({ ping: 1 });
      link.deadline(PING_TIMEOUT, again);
    }
  }

  function again() {
    plan.again();
    connect();
  }

  /** Sees to it that something goes on, where something should. */
  function ensure() {
    if (client.running && !isAway && !link && !timer) connectLater(plan.notBefore - now());
  }

  function tick() {
    following.forgive(now());
    for (const one of [side, link])
      if (one && now() - one.heard > bus.heartbeatTimeout) one.ended({ message: "no heartbeat", isMute: one.batches < 2 });
    ensure();
    const better = plan.better();
    if (client.state !== "connected" || side || !link || !better) return;
    if (!isPoll(better)) {
      side = open(better, "trial");
      return side.open();
    }
    // Each poll is a request like the next: there is nothing to keep.
    plan.use(better);
    connect();
  }

  const page = watchPage(environment, {
    online() {
      plan.online();
      move("online");
      wake({ force: true }); // over the new network
    },
    offline() {
      if (client.state === "idle") return;
      drop();
      take(plan.offline());
    },
    hide() {
      drop(); // or the page is not kept for the back button
      isAway = true;
    },
    wake,
    tick,
  });

  // ---- what the page asks for ----

  const client = {
    settings: bus, environment, channels, delivery, plan, guard, emit,
    running: false, state: "stopped",
    /** The last transport that opened. */
    transport: null,
    get link() { return link; },
    /** What the link in use was asked for; between two polls, the last one. */
    get asked() { return asked; },
    receive, ended, connect, rest, ensure,
    changed: () => following.changed(),
    isWaiting: () => timer && client.state !== "refused" && plan.failures > 0,
    /** Whether it has to be known at once what the server says: not yet connected, or channels that were not joined yet. */
    isFresh: ({ asked }) => client.state !== "connected" || [...asked.values()].some(({ entry }) => !entry.isJoined),
    nextSequence: () => ++sequence,

    start() {
      if (client.running) return client.retry();
      following.forgive();
      client.running = true;
      asked = new Map();
      plan.start();
      following.paced(-Infinity);
      page.start();
      if (channels.followed.size) client.state = nextState(client.state, "start");
      move(channels.followed.size ? "follow" : "start");
      delivery.drain();
      following.changed();
    },

    stop() {
      if (!client.running) return;
      client.running = wasConnected = false;
      plan.stop();
      drop();
      page.stop();
      following.changed();
      client.transport = null;
      move("stop");
    },

    /** Goes on at once, whatever it was waiting for. */
    retry() {
      if (!client.running) return;
      following.forgive();
      if (client.state === "connected" && link) return following.changed();
      move("again");
      again();
    },

    /** Asks again for what was refused; a wait that the server asked for goes on. */
    credentialsChanged() {
      if (client.state === "refused") client.retry();
      else following.forgive();
    },

    resume() {
      delivery.paused = false;
      delivery.drain();
      following.changed();
    },

    async publish(channel, data, { timeout } = {}) {
      if (!link?.send || link.openedAt === undefined) throw failure("unsupported", "needs an open websocket");
      return link.call({ publish: { channel, data } }, timeout);
    },

    diagnostics: () => ({
      state: client.state, transport: client.transport, trying: plan.current, attempts, failures: plan.failures, lastProblem,
      nextAttempt: timer ? nextAt - now() : null, silence: link && now() - link.heard,
      left: bus.transports.filter(memory.isLeft), epoch: channels.epoch, queued: delivery.queue.length,
      channels: positionsOf([...channels.followed.values()]),
      refused: [...channels.followed.values()].flatMap(({ refused }) => refused || []),
    }),
  };
  const following = makeFollowing(client);
  return client;
}
