// How long to wait after failures.

const FIRST = 500; // ms
const SPREAD = 100; // ms; where the least is above the bound, they still do not come at once
const SHORT = 2000; // ms; the most while an outage is young
const SHARE = 15; // of an outage that one wait takes at most

/**
 * Milliseconds until the next attempt: any time from `least` up to a bound, so that the clients of a server that restarts do
 * not come at once. `failures`: in a row, from 1. `outage`: ms since the connection was lost. `random`: 0 to 1.
 */
export function backoff(failures, outage, random, least, greatest) {
  const most = Math.min(FIRST * 2 ** Math.min(failures, 30), Math.max(SHORT, outage / SHARE), greatest);
  return least + random * Math.max(most - least, SPREAD);
}

const LONGEST = 3600000; // ms; a server that says more is not believed

/** Milliseconds that `Retry-After` asks for, below 0 for what has passed: seconds, or a date (RFC 9110, section 10.2.3). */
export function retryAfter(header, wallClock) {
  return Math.min(header * 1000 || Date.parse(header) - wallClock || 0, LONGEST);
}
