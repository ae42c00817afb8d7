// From what was received to the page's callbacks: in order, paused or not, and whatever they throw.

const QUEUE_LIMIT = 1000; // kept while paused

/** `isFollowed(entry)`, `isRunning`: asked at each delivery. `emit("gap", channel, gap)`, `guard(what, fn, ...args)` call. */
export function makeDelivery(isFollowed, isRunning, emit, guard) {
  const queue = [];
  let isDraining;

  /** `id`: the message's own, or its global id where it comes by a pattern. */
  function deliver({ entry, gap, message, id }) {
    if (gap) return emit("gap", entry.channel, gap);
    const { channel, data, global_id, message_id, transient } = message;
    if (!(entry.head >= id)) entry.head = id;
    for (const one of entry.subscriptions.slice()) {
      if (!entry.subscriptions.includes(one) || one.start !== undefined || (one.after >= id && !transient)) continue;
      if (!(one.after >= id)) one.after = id;
      guard(`a callback of ${channel}`, one.fn, data, global_id, message_id, channel);
    }
  }

  const delivery = {
    queue, // paused
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
