// Which transport to use next, and when: docs/states.md in code. No I/O and no timers: it decides, client.js acts.

import { backoff, retryAfter } from "./backoff.js";
import { isFunction } from "./check.js";
import { areAsked } from "./credentials.js";
import { isHidden, now, wallClock } from "./environment.js";

const STRIKES = 3; // in a row, after which a transport that had worked is left
const SETTLED = 10000; // ms
const LEAST_AFTER_429 = 15000; // ms
const LEAST_AFTER_PAGE = 5000; // ms, where a page came in place of a batch
const PATIENCE_MOST = 30000; // ms
const HELD = 1000; // ms; a server that holds as many polls as it can answers further ones at once
const POLITE = [1001, 1012, 1013]; // close codes by which a server says: come back

/**
 * @typedef {object} Step What to do next.
 * @property {number} [after] milliseconds to wait; without it at once
 * @property {boolean} [probe] ask by a plain poll whether the server is there; undefined: as `wantsProbe` says
 * @property {string} [event] what has happened to the state; without it nothing
 * @property {object} [info] what the page is told with it
 */

/** `settings`: the bus. `queryFits`: whether all channels fit into the line of an EventSource request. */
export function makePlan(settings, memory, queryFits, guard) {
  let failures, lostAt; // in a row, of any kind; when they began
  let strikes; // in a row, of the current transport
  let suspicion; // the problem that a probe is to explain
  let down, isOffline; // the server is away; the browser says that there is no network
  let renewed; // credentials were asked for again since it was last let in
  let heldRequests = 0;

  const plan = {
    // current: the transport to use
    notBefore: 0, // the server asked not to come earlier
    // patience: milliseconds for the first batch; as long as a slow line takes for a plain poll, twice.
    get failures() { return failures; },
    get wantsProbe() { return down && plan.current !== "polling" && usable().length > 1; },

    /** Forgets what goes on, but not what worked. */
    reset() {
      down = isOffline = renewed = suspicion = plan.current = undefined;
      failures = strikes = lostAt = plan.notBefore = 0;
      plan.patience = settings.firstChunkTimeout;
    },

    /** The first batch of a link that is to be used. */
    opened(link) {
      isOffline = renewed = plan.notBefore = 0;
      // A poll that was not held says nothing of held ones.
      if (!link.plain || link.name === "polling") memory.worked(link.name);
      // A connection that breaks again soon is of a young outage.
      if (lostAt) lostAt = now();
    },

    isSettled: (link) => now() - link.openedAt >= SETTLED,

    settled(link) {
      failures = strikes = lostAt = 0;
      if (!link.plain) memory.forgive(link.name);
    },

    /** The link has ended by itself: in good order (a poll was answered) or with a problem. Returns a Step. */
    ended(link, problem) {
      if (!problem) {
        if (link.isProbe) return probed(now() - link.since);
        plan.settled(link);
        return nextPoll(link);
      }
      const { reconnect: after } = link, hasSettled = plan.isSettled(link) && !problem.isMute;
      if (after !== undefined) return wait(after, { ...problem, retry: true });
      if (hasSettled) plan.settled(link);
      failures++;
      lostAt ||= now();
      const step = answered(problem);
      if (step) return step;
      if (hasSettled || (link.openedAt && POLITE.includes(problem.closeCode))) return retry(problem);
      if (link.isProbe || link.name === "polling" || usable().length < 2) {
        down = true;
        strikes = 0;
        // Where nothing else can tell whether the line is slow, the next attempt gets more time.
        if (!link.openedAt) plan.patience = Math.min(2 * plan.patience, PATIENCE_MOST);
        return retry(problem);
      }
      // The transport, or the server? Only the first is a reason to use a lesser one.
      suspicion = problem;
      return { probe: true, event: "fail", info: problem };
    },

    /** The browser says that the network has gone. */
    offline() {
      isOffline = true;
      return retry({ message: "offline" }, 0, "offline"); // slowly: a server on this machine is still there
    },

    online() {
      isOffline = false;
    },

    /** Somebody says that it is worth while to try at once. */
    again() {
      failures = plan.notBefore = lostAt = 0;
      renewed = false;
    },

    /** A better transport that it is time to try; a false one where there is none. */
    better() {
      const list = usable(), index = list.indexOf(plan.current);
      return index > 0 && !isHidden() && firstNotLeft(list.slice(0, index));
    },

    /** Uses a transport from now on. */
    use(name) {
      plan.current = name;
      strikes = 0;
    },

    usable, choose, mayHold,
  };

  /** The transports that can be used now; never empty. */
  function usable() {
    const { headers, transports, enableLongPolling, enableChunkedEncoding } = settings;
    // Browsers send no headers of ours with the first two.
    const plain = !isFunction(headers) && !Object.keys(headers)[0];
    const can = {
      websocket: plain && globalThis.WebSocket,
      eventsource: plain && globalThis.EventSource && queryFits(),
      streaming: enableLongPolling && enableChunkedEncoding,
      "long-polling": enableLongPolling,
      polling: true,
    };
    const list = transports.filter((name) => can[name]);
    return list[0] ? list : ["polling"];
  }

  const firstNotLeft = (list) => list.find((name) => !memory.isLeft(name));
  const best = (list) => firstNotLeft(list) || list[0];

  /** The transport for the next attempt. */
  function choose() {
    const list = usable();
    if (!list.includes(plan.current)) plan.use(best(list));
    return plan.current;
  }

  /** Whether the server may hold a poll now. */
  function mayHold() {
    const { alwaysLongPoll, shouldLongPollCallback: callback } = settings;
    return alwaysLongPoll || ((callback && guard("shouldLongPollCallback", callback)) ?? !isHidden());
  }

  const shortest = () => (isHidden() ? settings.minHiddenPollInterval : settings.minPollInterval);

  const wait = (after, problem, event = "fail") => ({ after, event, info: { ...problem, delay: after } });

  function retry(problem, atLeast = 0, event = undefined) {
    const least = isOffline ? settings.backgroundCallbackInterval : shortest();
    const after = backoff(failures || 1, lostAt && now() - lostAt, Math.random(), least, settings.maxPollInterval);
    return wait(Math.max(after, atLeast), problem, event);
  }

  /** The server is there: was it the transport? */
  function probed(took) {
    const problem = suspicion, tooSlow = took > plan.patience;
    suspicion = undefined;
    plan.patience = Math.max(settings.firstChunkTimeout, 2 * took);
    if (down || !problem || tooSlow) {
      // It was the server, or the line: back to what was used before.
      down = false;
      return {};
    }
    const { current } = plan, hasWorked = memory.isGood(current) && !problem.isMute;
    if (++strikes < (hasWorked ? STRIKES : 1)) return retry(problem);
    memory.leave(current);
    const list = usable(), next = best(list.slice(list.indexOf(current) + 1));
    plan.use(next || list[0]);
    return next ? {} : retry(problem, settings.callbackInterval); // the probes take the place of polling
  }

  /** A status from 400 on, or a page in place of a batch: who mends it? */
  function answered(problem) {
    const { status, code, retryAfter: header } = problem;
    const asked = Math.max(retryAfter(header, wallClock()), status === 429 ? LEAST_AFTER_429 : 0);
    if (asked) {
      suspicion = undefined; // the server has spoken for itself
      plan.notBefore = now() + asked;
      return retry({ ...problem, retry: true }, asked);
    }
    const told = { ...problem, retry: false };
    if (code === "not_a_batch") return retry(told, LEAST_AFTER_PAGE);
    // 404 may be a deployment; 408 and 425 ask to come again.
    if (code !== "redirected" && !(status >= 400 && status < 500 && ![404, 408, 425].includes(status))) return undefined;
    // Something before the bus refuses POST. A GET may still get through.
    if (suspicion && !code && [400, 405].includes(status) && /^[we]/.test(plan.current))
      return { event: "fail", info: told, ...probed(0) };
    if (!renewed && [401, 403].includes(status) && areAsked(settings)) {
      renewed = true; // with what they say now
      return {};
    }
    return retry(told, settings.maxPollInterval, "refuse");
  }

  /** After a poll: soon if it brought something or was held, else at the interval. */
  function nextPoll(link) {
    const { callbackInterval, backgroundCallbackInterval, retryChunkedAfterRequests } = settings;
    const elapsed = now() - link.since, hold = mayHold(), list = usable();
    if (link.name === "long-polling" && !link.plain && ++heldRequests >= retryChunkedAfterRequests) {
      heldRequests = 0;
      if (list.slice(0, list.indexOf(link.name)).includes("streaming")) plan.use("streaming");
    }
    const wasHeld = !link.plain && elapsed > HELD;
    const interval = hold ? callbackInterval : backgroundCallbackInterval;
    const after = link.reconnect ?? (link.progress || wasHeld || (link.greeting && hold) ? 0 : interval - elapsed);
    return { after: Math.max(after, shortest()) };
  }

  return plan;
}
