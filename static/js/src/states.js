// The states of a client as a table; what they mean is said in docs/states.md.

const TRYING = { open: "connected", fail: "connecting", refuse: "refused", offline: "offline", rest: "idle", stop: "stopped" };

/** state -> event -> state. What is not here changes nothing. */
export const TRANSITIONS = {
  stopped: { start: "idle" },
  idle: { follow: "connecting", stop: "stopped" },
  connecting: TRYING,
  connected: TRYING,
  reconnecting: TRYING,
  offline: { ...TRYING, fail: "offline", online: "connecting" },
  refused: { ...TRYING, again: "connecting" },
};

/** `wasConnected`: since it was started. */
export function nextState(state, event, wasConnected) {
  const next = TRANSITIONS[state][event] ?? state;
  return next === "connecting" && wasConnected ? "reconnecting" : next;
}
