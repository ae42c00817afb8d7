// What the pages of an origin tell each other, through localStorage: which transport worked, and when one polled last.

const REMEMBERED = 86400000; // ms
const LAST_POLL = "__mbLastAjax"; // message-bus-client's name for it

export class Memory {
  #environment;
  #baseUrl;

  /** `baseUrl`: asked at each use; transports are remembered for each. */
  constructor(environment, baseUrl) {
    this.#environment = environment;
    this.#baseUrl = baseUrl;
  }

  #stored(key, value) {
    try {
      const storage = this.#environment.get("localStorage");
      if (value) storage.setItem(key, JSON.stringify(value));
      return JSON.parse(storage.getItem(key));
    } catch {
      return null; // forbidden, full or not there: every page is on its own
    }
  }

  get #key() {
    return `messagebus:${this.#baseUrl()}`;
  }

  /** The transport that worked within the last day. */
  get transport() {
    const { 0: name, 1: at } = this.#stored(this.#key) || {};
    return this.#environment.now() - at < REMEMBERED && name;
  }

  set transport(name) {
    this.#stored(this.#key, [name, this.#environment.now()]);
  }

  /** When any page polled last, in ms. */
  get lastPoll() {
    return this.#stored(LAST_POLL);
  }

  set lastPoll(at) {
    this.#stored(LAST_POLL, at);
  }
}
