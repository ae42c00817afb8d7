// What `subscribe` returns: a handle that is also the function which undoes it.

/** `after`: the last id that its callback was given. `start`: a position that it waits to begin from. */
export function makeSubscription(entry, fn, onRefused, remove) {
  const { channel } = entry;
  let ready, waiting; // a promise, and what settles it
  const handle = () => remove(channel, handle);
  const subscription = {
    fn, handle, after: undefined, start: undefined,

    /** The channel was joined, or refused for good: whoever waits for `ready` is told. */
    settle() {
      const { isJoined, refused } = entry;
      if (!waiting) return;
      if (refused && !refused.retry) {
        waiting.reject(Object.assign(new Error(refused.message), refused));
        ready = waiting = undefined; // it may be allowed later
      } else if (isJoined && subscription.start === undefined) waiting.resolve({ channel, position: handle.position });
    },
  };
  const getter = (get) => ({ get, enumerable: true });
  Object.defineProperties(handle, {
    position: getter(() => subscription.after ?? subscription.start ?? entry.position),
    ready: getter(() => {
      ready ||= new Promise((resolve, reject) => (waiting = { resolve, reject }));
      const promise = ready;
      subscription.settle();
      return promise;
    }),
  });
  Object.assign(handle, { channel, onRefused, unsubscribe: () => void handle() });
  return subscription;
}
