// What the page and the clocks tell: shown, hidden, put away, offline, asleep. It knows nothing of connections.

import { isHidden, now, wallClock } from "./environment.js";

const TICK = 5000; // ms between two looks at the clocks
const LATE_WHEN_HIDDEN = 70000; // ms; timers of hidden pages are up to a minute late anyway

/**
 * Returns what starts it (true) and ends it. Handlers: online, offline, hide, tick, and wake(lost). `lost`: ms that the page
 * was asleep, as far as is known; Infinity: what is open is not to be trusted.
 */
export function watchPage({ online, offline, hide, tick, wake }) {
  let timer, due, dueByWall, wasHidden; // wasHidden: at any time since the last tick

  /** How late the tick is. One clock stands still while the machine sleeps, the other may be set. */
  const late = () => Math.max(now() - due, wallClock() - dueByWall, 0);

  const listeners = {
    online, offline,
    pagehide: hide,
    pageshow: ({ persisted }) => wake(persisted ? Infinity : late()),
    visibilitychange() {
      wasHidden = true;
      if (!isHidden()) wake();
    },
    resume: () => wake(late()),
  };

  function look() {
    const lost = late(), slept = lost > (wasHidden ? LATE_WHEN_HIDDEN : TICK);
    schedule();
    if (slept) wake(lost);
    else tick();
  }

  function schedule() {
    wasHidden = isHidden();
    due = now() + TICK;
    dueByWall = wallClock() + TICK;
    timer = setTimeout(look, TICK);
  }

  return (isOn) => {
    // The window captures what the document is told as well. Node has no such thing.
    const listen = globalThis[isOn ? "addEventListener" : "removeEventListener"];
    for (const type in listeners) listen?.(type, listeners[type], true);
    clearTimeout(timer);
    if (isOn) schedule();
  };
}
