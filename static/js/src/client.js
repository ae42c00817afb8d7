// Opens what the plan says, takes what comes, and tells the page. At most two links are there at a time: the one in use, and
// beside it the trial of a better transport, or the next connection where the server is to end.

import { makeChannels, positionsOf } from "./channels.js";
import { makeDelivery } from "./delivery.js";
import { isHidden, log, now, wallClock } from "./environment.js";
import { makeFollowing } from "./following.js";
import { isPoll, makeLink } from "./links/link.js";
import { makeMemory } from "./memory.js";
import { watchPage } from "./page.js";
import { makePlan } from "./plan.js";
import { nextState } from "./states.js";
import { QUERY_LIMIT, parameters } from "./wire.js";

const PING_TIMEOUT = 3000; // ms
const MOVE_FIRST = 1000, MOVE_MOST = 8000; // ms until a next connection is tried again
const SLEPT = 1000; // ms
const TRUSTED = 30000; // ms of silence, a heartbeat and a bit, after which what cannot be asked is replaced

/** `bus`: the settings. `emit(event, ...)`: tells the page. */
export function makeClient(bus, emit) {
  let wasConnected = false, told;
  let link, side; // in use, or to be; beside it
  let asked = new Map();
  let timer, nextAt; // of the next attempt
  let moving, patience; // the timer of the next connection, where the server asks for one; the longest wait for it
  let attempts = 0, lastProblem;
  let isAway = false; // put away for the back button

  const guard = (what, fn, ...args) => {
    try {
      return fn(...args);
    } catch (error) {
      log("error", `${what} threw`, error); // and the others get theirs
    }
  };

  function move(event, info = {}) {
    const { transport } = client, state = (client.state = nextState(client.state, event, wasConnected));
    wasConnected = client.running && (wasConnected || state === "connected");
    const isNews = told !== (told = state + transport);
    if (info.message) lastProblem = { ...info, at: wallClock() };
    if (!isNews && !info.message) return;
    if (bus.debug) log("log", new Date(wallClock()).toJSON(), `#${attempts}`, state, transport, info);
    emit("state", state, { transport, ...info });
  }

  const memory = makeMemory(bus);
  const channels = makeChannels(() => client.changed(), (...args) => client.refused(...args));
  const queryFits = () => parameters(channels.followed, channels.epoch, bus.grants).length <= QUERY_LIMIT;
  const plan = makePlan(bus, memory, queryFits, guard);
  const delivery = makeDelivery(channels.isFollowed, () => client.running, emit, guard);

  // ---- attempts ----

  function drop() {
    clearTimeout(timer);
    clearTimeout(moving);
    link?.drop();
    side?.drop();
    timer = moving = link = side = null;
    patience = MOVE_FIRST / 2;
  }

  /** What is tried beside it goes on in its place. */
  function takeOver() {
    const next = side;
    side = null;
    drop();
    link = next;
    asked = link.asked;
    plan.use(link.name);
    client.changed(); // what has come meanwhile
  }

  /** Opens the next connection within `ms`, beside the present one: the server is to end. */
  function moveWithin(ms) {
    moving = setTimeout(() => {
      // Not while a command is unanswered, nor before it was said where each channel stands.
      const isBusy = !link || side || Object.keys(link.calls)[0] || [...asked.values()].some(({ entry }) => entry.position < 0);
      if (isBusy) return moveWithin(MOVE_FIRST);
      side = makeLink(client, link.name, false, true);
      side.open();
    }, Math.random() * ms);
  }

  /** There is nothing to do. */
  function rest() {
    drop();
    asked = new Map();
    move("rest");
  }

  function connectLater(ms, probe) {
    clearTimeout(timer);
    nextAt = now() + ms;
    timer = setTimeout(() => connect(probe), ms);
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
      if (isHidden() && memory.sinceLastPoll() < bus.minHiddenPollInterval) return connectLater(500 + Math.random() * 500, probe);
      memory.polled();
      client.requestedAt = now();
    }
    attempts++;
    link = makeLink(client, name, probe);
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
    channels.accept(batch, one, delivery.put);
    if (one.batches === 1) {
      one.openedAt = now();
      if (one === side) takeOver(); // it works
      for (const asked of one.asked.values()) channels.joined(asked);
      if (!one.isProbe) {
        client.transport = one.name;
        plan.opened(one);
        move("open");
      }
    } else if (plan.isSettled(one)) plan.settled(one);
    if (one.moving >= 0 && !moving) moveWithin(one.moving);
    delivery.drain();
    if (delivery.isFull()) rest();
  }

  function ended(one, problem) {
    one.drop();
    if (one === side) {
      side = null;
      if (one.name !== link?.name) return memory.leave(one.name);
      return moveWithin((patience = Math.min(2 * patience, MOVE_MOST)));
    }
    link = null;
    if (problem?.status < 500 && one.asked.has(problem.field)) {
      // Refused as a whole for one channel's sake.
      channels.acceptRefusals([[problem.field, problem]], one.asked);
      return connect(one.isProbe);
    }
    if (side && (problem || side.name === one.name)) {
      takeOver();
      return problem && move("fail", problem);
    }
    const step = plan.ended(one, problem);
    if (step.event === "refuse") log("warn", "the server refused", [...channels.followed.keys()], problem.message);
    take(step);
  }

  // ---- the page and the clocks ----

  /** `lost`: ms that the page was asleep; Infinity: what is open is not to be trusted. */
  function wake(lost = 0) {
    isAway = false;
    if (!client.running || now() < plan.notBefore) return ensure();
    const silence = link ? Math.max(now() - link.heard, lost) : Infinity;
    // A socket can be asked. What cannot is replaced, where it may have died; a poll that is not held comes at once.
    const isDoubtful = link?.plain ? !lost : !link?.send && (lost > SLEPT || silence > TRUSTED);
    if (isDoubtful || silence > bus.heartbeatTimeout) again();
    else if (link.send) {
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
    client.forgive(now());
    for (const one of [side, link])
      if (one && now() - one.heard > bus.heartbeatTimeout) one.ended({ message: "timeout", isMute: one.batches < 2 });
    ensure();
    const better = plan.better();
    if (client.state !== "connected" || side || !link || !better) return;
    if (!isPoll(better)) {
      side = makeLink(client, better, false, true);
      return side.open();
    }
    // Each poll is a request like the next: there is nothing to keep.
    plan.use(better);
    connect();
  }

  const page = watchPage({
    online() {
      plan.online();
      move("online");
      wake(Infinity); // over the new network
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
    settings: bus, channels, delivery, plan, guard, emit,
    state: "stopped", polls: 0, // running
    /** The last transport that opened. */
    transport: null,
    get link() { return link; },
    /** What the link in use was asked for; between two polls, the last one. */
    get asked() { return asked; },
    receive, ended, connect, rest, ensure,
    isWaiting: () => timer && client.state !== "refused" && plan.failures > 0,

    start() {
      if (client.running) return client.retry();
      client.forgive();
      client.running = true;
      asked = new Map();
      plan.reset();
      client.requestedAt = -Infinity;
      page(true);
      client.state = "idle";
      move(channels.followed.size ? "follow" : "start"); // of idle nobody is told where that is not so
      delivery.drain();
      client.changed();
    },

    stop() {
      if (!client.running) return;
      client.running = wasConnected = false;
      plan.reset();
      drop();
      page();
      client.changed();
      client.transport = null;
      move("stop");
    },

    /** Goes on at once, whatever it was waiting for. */
    retry() {
      if (!client.running) return;
      client.forgive();
      if (client.state === "connected" && link) client.changed();
      else {
        move("again");
        again();
      }
    },

    /** Asks again for what was refused; a wait that the server asked for goes on. */
    credentialsChanged() {
      if (client.state === "refused") client.retry();
      else client.forgive();
    },

    resume() {
      delivery.paused = false;
      delivery.drain();
      client.changed();
    },

    diagnostics: () => ({
      version: bus.version, status: bus.status(), clientId: bus.clientId,
      state: client.state, transport: client.transport, trying: plan.current, attempts, failures: plan.failures, lastProblem,
      nextAttempt: timer ? nextAt - now() : null, left: bus.transports.filter(memory.isLeft), epoch: channels.epoch, queued: delivery.queue.length,
      channels: positionsOf([...channels.followed.values()]),
      refused: [...channels.followed.values()].flatMap(({ refused }) => refused || []),
    }),
  };
  return Object.assign(client, makeFollowing(client));
}
