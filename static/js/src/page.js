// What the page and the clocks tell: shown, hidden, put away, offline, asleep. It knows nothing of connections.

const TICK = 5000; // ms between two looks at the clocks
const LATE_WHEN_HIDDEN = 70000; // ms; timers of hidden pages are up to a minute late anyway

/**
 * `handlers`: online, offline, hide, tick, and wake({lost, force}). `lost`: ms that the page was asleep, as far as is known;
 * `force`: what is open is not to be trusted.
 */
export function watchPage(environment, { online, offline, hide, tick, wake }) {
  const { get, isHidden, now, wallClock, setTimer, clearTimer } = environment;
  let timer, due, dueByWall, wasHidden; // wasHidden: at any time since the last tick

  /** How late the tick is. One clock stands still while the machine sleeps, the other may be set. */
  const late = () => Math.max(now() - due, wallClock() - dueByWall, 0);

  const listeners = {
    window: { online, offline, pagehide: hide, pageshow: ({ persisted }) => wake({ lost: late(), force: persisted }) },
    document: {
      visibilitychange() {
        wasHidden = true;
        if (!isHidden()) wake({ lost: 0, isShown: true });
      },
      resume: () => wake({ lost: late() }),
    },
  };

  function listen(verb) {
    for (const [target, handlers] of Object.entries(listeners))
      for (const [type, fn] of Object.entries(handlers)) get(target)?.[verb]?.(type, fn);
  }

  function schedule() {
    wasHidden = isHidden();
    due = now() + TICK;
    dueByWall = wallClock() + TICK;
    timer = setTimer(look, TICK);
  }

  function look() {
    const lost = late(), slept = lost > (wasHidden ? LATE_WHEN_HIDDEN : TICK);
    schedule();
    if (slept) wake({ lost });
    else tick();
  }

  return {
    start() {
      listen("addEventListener");
      schedule();
    },
    stop() {
      clearTimer(timer);
      listen("removeEventListener");
    },
  };
}
