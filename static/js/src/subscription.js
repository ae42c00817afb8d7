// What `subscribe` returns: a handle that is also the function which undoes it.

import { failure } from "./wire.js";

/** `after`: the last id that its callback was given. `start`: a position that it waits to begin from. */
export function makeSubscription(entry, fn, onRefused, remove) {
  const { channel } = entry;
  let ready, resolve, reject;
  const handle = () => remove(channel, handle);
  const subscription = {
    fn, handle,

    /** The channel was joined, or refused for good: whoever waits for `ready` is told. */
    settle() {
      const { isJoined, refused } = entry;
      if (!ready) return;
      if (refused && !refused.retry) {
        reject(failure(refused));
        ready = undefined; // it may be allowed later
      } else if (isJoined && subscription.start === undefined) resolve({ channel, position: handle.position });
    },
  };
  Object.assign(handle, { channel, onRefused, unsubscribe: () => void handle() });
  Object.defineProperties(handle, {
    position: { get: () => subscription.after ?? subscription.start ?? entry.position },
    ready: {
      get() {
        const promise = (ready ||= new Promise((...settlers) => ([resolve, reject] = settlers)));
        subscription.settle();
        return promise;
      },
    },
  });
  return subscription;
}
