// From what was received to the page's callbacks: in order, paused or not, and whatever they throw.

const QUEUE_LIMIT = 1000; // kept while paused

export class Delivery {
  paused = false;
  #queue = [];
  #draining = false;
  #options;

  /** `followed`: the channels' entries; `isRunning`, `onGap`: asked at each delivery; `guard(what, fn, ...args)` calls. */
  constructor(options) {
    this.#options = options;
  }

  get isFull() {
    return this.#queue.length >= QUEUE_LIMIT;
  }

  get length() {
    return this.#queue.length;
  }

  put(deliveries) {
    for (const delivery of deliveries) this.#queue.push(delivery);
  }

  drain() {
    if (this.#draining) return; // a callback called resume()
    const { followed, isRunning, onGap, guard } = this.#options;
    this.#draining = true;
    let done = 0;
    while (done < this.#queue.length && isRunning() && !this.paused) {
      const { entry, channel, gap, message } = this.#queue[done++];
      if (followed.get(channel) !== entry) continue;
      if (gap) guard("onGap", onGap(), channel, gap);
      else
        for (const callback of [...entry.callbacks])
          if (entry.callbacks.includes(callback))
            guard(`a callback of ${channel}`, callback.fn, message.data, message.global_id, message.message_id);
    }
    this.#queue.splice(0, done);
    this.#draining = false;
  }
}
