// Which messages were said while this page had no connection. The two clocks differ, so they are compared first.
const UNSURE = 250; // milliseconds; no better is known how the two clocks differ

const [navigation] = performance.getEntriesByType("navigation");
// How far this clock is ahead of the server's, and the time the page took to get here. Messages that come faster correct it.
let ahead = performance.timeOrigin + (navigation?.responseStart ?? 0) - Number(document.body.dataset.now);
let away = 0; // when the connection broke, by the server's clock; 0 while there is one
let backAt = 0; // when it stood again

const serverTime = () => Date.now() - ahead;

/* Returns whether the connection has just broken. */
export function noteState(state) {
  if (state === "connected" && away) {
    backAt = serverTime();
    away = 0;
  } else if (!away && ["reconnecting", "offline", "stopped"].includes(state)) {
    away = serverTime();
    return true;
  }
  return false;
}

/* Whether a message that was said at that time comes late. While the connection is down, the client asks now and then. */
export function isLate(at) {
  if (at) ahead = Math.min(ahead, Date.now() - at);
  return away > 0 || (at !== null && at < backAt + UNSURE);
}
