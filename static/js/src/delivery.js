// From what was received to the page's callbacks: in order, paused or not, and whatever they throw.

const QUEUE_LIMIT = 1000; // kept while paused

/** `isFollowed(entry)`, `isRunning`: asked at each delivery. `emit("gap", channel, gap)`, `guard(what, fn, ...args)` call. */
export function makeDelivery(isFollowed, isRunning, emit, guard) {
  const queue = [];
  let isDraining;

  function deliver({ entry, gap, message }) {
    if (gap) return emit("gap", entry.channel, gap);
    const { data, global_id, message_id, transient } = message;
    if (!(entry.head >= message_id)) entry.head = message_id;
    for (const one of [...entry.subscriptions]) {
      if (!entry.subscriptions.includes(one) || one.start !== undefined) continue;
      if (!(one.after >= message_id)) one.after = message_id;
      else if (!transient) continue;
      guard(`a callback of ${entry.channel}`, one.fn, data, global_id, message_id);
    }
  }

  const delivery = {
    queue, paused: false,
    isFull: () => delivery.paused && queue.length >= QUEUE_LIMIT,

    put(entry, what) {
      entry.queued++;
      queue.push({ entry, ...what });
    },

    drain() {
      if (isDraining) return; // a callback called resume()
      isDraining = true;
      try {
        while (queue[0] && isRunning() && !delivery.paused) {
          const next = queue.shift();
          next.entry.queued--;
          if (isFollowed(next.entry)) deliver(next);
        }
      } finally {
        isDraining = false;
      }
    },
  };
  return delivery;
}
