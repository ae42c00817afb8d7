// What the client uses of the browser, the worker or Node, as far as it needs a word of its own.

export const LONGEST = 2147483647; // ms; browsers fire longer timers at once

/** Milliseconds that only ever grow, for durations. */
export const now = () => performance.now();
/** Milliseconds of the calendar, for what other pages read. It may be set back. */
export const wallClock = () => Date.now();
export const log = (level, ...what) => console[level]("MessageBus:", ...what);
export const isHidden = () => globalThis.document?.hidden;
