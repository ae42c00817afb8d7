// What the page and the clock tell: shown, hidden, put away, offline, asleep. It knows nothing of connections.

const TICK = 5000; // ms between two looks at the clock
const LATE_WHEN_HIDDEN = 70000; // ms; timers of hidden pages are up to a minute late anyway

export class PageWatch {
  #environment;
  #handlers;
  #listeners;
  #timer;
  #due;
  #hidden; // at any time since the last tick

  /** `handlers`: online, offline, hide, wake(force), tick. `force`: what is open is not to be trusted. */
  constructor(environment, handlers) {
    this.#environment = environment;
    this.#handlers = handlers;
    const { online, offline, hide, wake } = handlers;
    this.#listeners = {
      window: { online, offline, pagehide: hide, pageshow: (event) => wake(event.persisted) },
      document: {
        visibilitychange: () => {
          this.#hidden = true;
          if (!environment.isHidden()) wake(false);
        },
        resume: () => wake(true),
      },
    };
  }

  start() {
    this.#listen("addEventListener");
    this.#schedule();
  }

  stop() {
    this.#environment.clearTimer(this.#timer);
    this.#listen("removeEventListener");
  }

  #listen(verb) {
    for (const [target, handlers] of Object.entries(this.#listeners))
      for (const [type, fn] of Object.entries(handlers)) this.#environment.get(target)?.[verb]?.(type, fn);
  }

  #schedule() {
    this.#hidden = this.#environment.isHidden();
    this.#due = this.#environment.now() + TICK;
    this.#timer = this.#environment.setTimer(() => this.#tick(), TICK);
  }

  #tick() {
    // So late: the machine slept, and connections died.
    const slept = this.#environment.now() - this.#due > (this.#hidden ? LATE_WHEN_HIDDEN : TICK);
    this.#schedule();
    if (slept) this.#handlers.wake(true);
    else this.#handlers.tick();
  }
}
