// Which transport to use next, and when. No I/O and no timers: it decides, client.js acts.
//
// A transport that fails to open, or stays silent, is followed by one plain poll, the probe: if that fails too, the
// server is gone and all wait for it; if it gets through, the transport is to blame and the next one is used.

const STRIKES = 3; // failures after which a transport that had worked is left
const SETTLED = 5000; // ms after which a connection has proved itself
const UPGRADE_FIRST = 300000, UPGRADE_MOST = 3600000; // ms until a better one is tried again
const LEAST_AFTER_429 = 15000; // ms
const HELD = 1000; // ms; a server that holds as many polls as it can answers further ones at once

/**
 * @typedef {object} Step What to do next.
 * @property {number} [after] milliseconds to wait; without it at once
 * @property {boolean} [probe] ask by a plain poll whether the server is there; undefined: as `attempt` sees it
 * @property {object} [info] what the page is told, if it is
 */

export class Plan {
  state = "stopped";
  /** The last transport that opened. */
  inUse = null;
  /** The transport to use. */
  current = null;
  failures = 0; // in a row, of any kind
  notBefore = 0; // the server asked not to come earlier
  #settings;
  #environment;
  #memory;
  #queryFits;
  #strikes = 0; // in a row, of this transport to open
  #down = false;
  #offline = false;
  #refused = false;
  #worked = new Set(); // transports that opened in this page
  #heldRequests = 0;
  #upgradeAt = 0;
  #upgradeGap = UPGRADE_FIRST;

  /** `settings`: the bus. `queryFits`: whether all channels fit into the line of an EventSource request. */
  constructor(settings, environment, memory, queryFits) {
    this.#settings = settings;
    this.#environment = environment;
    this.#memory = memory;
    this.#queryFits = queryFits;
  }

  start() {
    this.current = this.#memory.transport;
    this.#upgradeAt = this.#environment.now() + this.#upgradeGap;
  }

  /** Forgets what goes on, but not what worked. */
  stop() {
    this.#down = this.#offline = this.#refused = false;
    this.failures = this.#strikes = this.notBefore = 0;
    this.inUse = this.current = null;
  }

  /** The transports that can be used now; never empty. */
  usable() {
    const { headers, transports, enableLongPolling, enableChunkedEncoding } = this.#settings;
    const plain = !Object.keys(headers).length; // browsers send no headers of ours with the first two
    const can = {
      websocket: plain && this.#environment.get("WebSocket"),
      eventsource: plain && this.#environment.get("EventSource") && this.#queryFits(),
      streaming: enableLongPolling && enableChunkedEncoding,
      "long-polling": enableLongPolling,
      polling: true,
    };
    const list = transports.filter((name) => can[name]);
    return list.length ? list : ["polling"];
  }

  get wantsProbe() {
    return this.#down && this.current !== "polling" && this.usable().length > 1;
  }

  /** The name of the transport for the next attempt. */
  attempt(probe) {
    const list = this.usable();
    if (!list.includes(this.current)) this.current = list[0];
    return probe ? "polling" : this.current;
  }

  /** Says whether it was the first sign of life of this link. */
  opened(link) {
    if (link.opened) return false;
    link.opened = true;
    this.#offline = this.#refused = false;
    if (link.probe) return true;
    const list = this.usable();
    this.inUse = this.current;
    if (this.current === list[0]) this.#upgradeGap = UPGRADE_FIRST;
    if (!link.greeting) {
      this.#worked.add(this.current);
      if (list[1] && this.#memory.transport !== this.current) this.#memory.transport = this.current;
    }
    return true;
  }

  carried() {
    this.failures = 0;
  }

  /** The link has ended by itself: in good order (a poll was answered) or with a problem. Returns a Step. */
  ended(link, problem) {
    const settled = link.carried || this.#environment.now() - link.since >= SETTLED;
    if (!problem || (link.opened && settled)) {
      this.failures = 0;
      if (!link.probe && !link.greeting) this.#strikes = 0;
    }
    if (!problem) return link.probe ? this.#probed() : this.#nextPoll(link);
    this.failures++;
    const { status, retryAfter } = problem;
    if (status === 429 || retryAfter) {
      const seconds = retryAfter * 1000 || Date.parse(retryAfter) - this.#environment.now() || 0; // or a date
      return this.retry(problem, Math.max(seconds, status === 429 ? LEAST_AFTER_429 : 0));
    }
    // 404 may be a deployment; 408 and 425 ask to come again.
    if (status >= 400 && status < 500 && ![404, 408, 425].includes(status)) {
      this.#refused = true;
      return this.retry({ ...problem, refused: true }, this.#settings.maxPollInterval);
    }
    if (link.opened && settled) return this.retry(problem);
    if (link.name === "polling" || this.usable().length < 2) {
      this.#down = true;
      return this.retry(problem);
    }
    // The transport, or the server? Only the first is a reason to use a lesser one.
    this.#strikes++;
    return { probe: true, info: problem };
  }

  #probed() {
    if (this.#down) { // it was the server: back to what was used before
      this.#down = false;
      this.#strikes = 0;
      return {};
    }
    if (this.#strikes < (this.#worked.has(this.current) ? STRIKES : 1)) {
      this.failures = this.#strikes;
      return this.retry();
    }
    this.#worked.delete(this.current);
    this.#strikes = 0;
    this.#upgradeAt = this.#environment.now() + this.#upgradeGap;
    const list = this.usable(), next = list[list.indexOf(this.current) + 1];
    this.current = next || list[0];
    return next ? {} : this.retry({}, this.#settings.callbackInterval);
  }

  /** After a poll: soon if it brought something or was held, else at the interval. */
  #nextPoll(link) {
    const { callbackInterval, backgroundCallbackInterval, retryChunkedAfterRequests } = this.#settings;
    const elapsed = this.#environment.now() - link.since, hold = this.mayHold();
    if (link.name === "long-polling" && !link.plain && ++this.#heldRequests >= retryChunkedAfterRequests) {
      this.#heldRequests = 0;
      if (this.usable().includes("streaming")) this.current = "streaming";
    }
    const held = !link.plain && elapsed > HELD;
    const interval = hold ? callbackInterval : backgroundCallbackInterval;
    const wait = link.progress || held || (link.greeting && hold) ? 0 : interval - elapsed;
    return { after: Math.max(wait, this.#shortest) };
  }

  /** Whether the server may hold a poll now. */
  mayHold() {
    const { alwaysLongPoll, shouldLongPollCallback } = this.#settings;
    return alwaysLongPoll || (shouldLongPollCallback ? shouldLongPollCallback() : !this.#environment.isHidden());
  }

  get #shortest() {
    const { minHiddenPollInterval, minPollInterval } = this.#settings;
    return this.#environment.isHidden() ? minHiddenPollInterval : minPollInterval;
  }

  /** The Step after a failure. */
  retry(problem, atLeast = 0) {
    const { minPollInterval, maxPollInterval, backgroundCallbackInterval } = this.#settings;
    const grown = minPollInterval * 2 ** Math.min(this.failures, 30);
    // Jitter: not all clients of a server that restarts shall come at once.
    const jittered = Math.min(grown, maxPollInterval) * (0.5 + this.#environment.random() / 2);
    const after = Math.max(jittered, this.#offline ? backgroundCallbackInterval : this.#shortest, atLeast);
    if (atLeast) this.notBefore = this.#environment.now() + atLeast;
    return { after, info: { ...problem, delay: after } };
  }

  /** The browser says that the network has gone. */
  wentOffline() {
    this.#offline = true;
    this.failures = 0;
    return this.retry({ message: "offline" }); // slowly: a server on this machine is still there
  }

  wentOnline() {
    this.#offline = false;
  }

  /** The state while there is no connection. */
  get trouble() {
    return this.#offline ? "offline" : this.inUse ? "reconnecting" : "connecting";
  }

  /** Whether other channels are a reason to come at once where there is no connection; a backoff goes on. */
  get waitsForChannels() {
    return !this.failures || this.#refused;
  }

  /** Whether it is time to leave a connection that works for a better transport. */
  isBetterDue(now) {
    const best = this.usable()[0];
    const lesser = this.state === "connected" && this.inUse === this.current && this.current !== best;
    if (now < this.#upgradeAt || !lesser || this.#environment.isHidden()) return false;
    this.#upgradeGap = Math.min(this.#upgradeGap * 2, UPGRADE_MOST);
    this.#upgradeAt = now + this.#upgradeGap;
    this.#strikes = 0;
    this.current = best;
    return true;
  }
}
