// messagebus-react: hooks for React 18 and newer.

import { MessageBus } from "#bus";
import { useEffect, useRef, useState, useSyncExternalStore } from "react";

const snapshots = new WeakMap(); // bus -> what useMessageBus returned last; a new object only when it has changed

function snapshotOf(bus) {
  const { state, transport } = bus, last = snapshots.get(bus);
  if (last && last.state === state && last.transport === transport) return last;
  const next = { bus, state, transport };
  snapshots.set(bus, next);
  return next;
}

/** {bus, state, transport} of a bus, of the page's own without one; the component is rendered again when they change. */
export function useMessageBus(bus = MessageBus) {
  const subscribe = useRef();
  if (subscribe.current?.bus !== bus) subscribe.current = Object.assign((changed) => bus.on("state", changed), { bus });
  return useSyncExternalStore(subscribe.current, () => snapshotOf(bus), () => snapshotOf(bus));
}

/**
 * Follows a channel as long as the component is there; null follows none. `callback` may be another function at each
 * rendering: that costs nothing. Returns {refused}: why the channel is refused, or null.
 */
export function useChannel(channel, callback, { lastId = null, bus = MessageBus } = {}) {
  const latest = useRef(callback);
  const [refused, setRefused] = useState(null);
  useEffect(() => {
    latest.current = callback;
  });
  useEffect(() => {
    setRefused(null);
    if (channel == null) return undefined;
    const handle = bus.subscribe(channel, (...args) => latest.current(...args), { lastId, onRefused: setRefused });
    handle.ready.then(() => setRefused(null), () => {});
    return handle.unsubscribe;
  }, [bus, channel, lastId]);
  return { refused };
}
