// A channel class of the server: enters it, follows the streams that it names, and calls its actions.

import { check, isFunction } from "../check.js";
import { now } from "../environment.js";

const EVENTS = ["connected", "disconnected", "rejected", "received"];
const AWAY = ["reconnecting", "offline", "refused", "idle", "stopped"]; // states in which the server may come to forget a page
const PAUSE = 2000; // ms before the next attempt to enter, where the server cannot be reached
const RENEWED = 60000; // ms in which a permission is not asked for twice

const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const isPassing = ({ code }) => ["disconnected", "timeout", "unavailable"].includes(code);

/** What each bus shows beside the grants of its own settings: the tokens of each subscription, by stream. */
const granted = new WeakMap();

/** The page's own, as of now: a class may ask what a page may see, also before there is a connection. */
async function ownGrants(bus) {
  const mine = granted.get(bus), pages = mine && bus.grants === mine.all ? mine.pages : bus.grants;
  return [await (isFunction(pages) ? pages() : pages) || []].flat();
}

/** Has the bus show these tokens, too, as long as they are there. The page's own grants, which may be a function, stay. */
function show(bus, tokens) {
  let mine = granted.get(bus);
  if (!mine) granted.set(bus, (mine = { shown: new Set(), all: null, pages: null }));
  mine.shown.add(tokens);
  if (bus.grants === mine.all) return;
  mine.pages = bus.grants;
  const ofStreams = () => new Map([...mine.shown].flatMap((one) => [...one])).values();
  mine.all = async () => [...await ownGrants(bus), ...ofStreams()];
  bus.grants = mine.all;
}

/** `bus`: whose connection it uses. Returns the subscription. */
export function enter(bus, name, params = {}, listeners = {}) {
  check(name && typeof name === "string", "channel", name);
  check(params && typeof params === "object" && !Array.isArray(params), "params", params);
  for (const event in listeners) check(EVENTS.includes(event) && isFunction(listeners[event]), event, listeners[event]);
  const streams = new Map(); // channel -> the subscription that follows it
  const tokens = new Map(); // channel -> what lets the page follow it
  const refusedAt = new Map(), renewing = new Set(); // channels: of which a permission was over, and which are to be asked for again
  let id, own, entering, timer, isOver = false, isTold = false;
  let isInDoubt = false; // it has entered, and the first connection failed: the server that knows it may have died

  const tell = (event, ...args) => {
    try {
      listeners[event]?.(...args);
    } catch (error) {
      console.error(`MessageBus: ${event} of ${name} threw`, error); // and the others get theirs
    }
  };

  const hear = (data) => {
    if ("message" in data) tell("received", data.message);
    if (data.streams) follow(data);
    for (const channel of data.stop || []) unfollow(channel);
  };

  function follow({ streams: positions, grants }) {
    Object.keys(positions).forEach((channel, index) => grants[index] && tokens.set(channel, grants[index]));
    show(bus, tokens);
    for (const channel in positions) {
      const known = streams.get(channel);
      if (known && !renewing.delete(channel)) continue;
      const lastId = known ? known.position : positions[channel];
      known?.();
      const take = channel === own ? hear : (data) => tell("received", data);
      const onRefused = (refusal) => refuse(channel, refusal);
      streams.set(channel, bus.subscribe(channel, take, { lastId, onRefused }));
    }
  }

  function unfollow(channel) {
    streams.get(channel)?.();
    streams.delete(channel);
    for (const all of [tokens, refusedAt, renewing]) all.delete(channel);
  }

  function up(isAgain) {
    if (isTold) return;
    isTold = true;
    tell("connected", { reconnected: isAgain });
  }

  function down() {
    if (!isTold) return;
    isTold = false;
    tell("disconnected");
  }

  /** Enters, or looks whether the server still knows; settles when that is known. */
  async function begin(key = randomKey()) {
    for (;;)
      try {
        const wasIn = id;
        let answer;
        if (id)
          answer = await bus.call("enter", { id }).catch((error) => {
            if (error.code !== "gone") throw error;
            id = null;
          });
        if (!answer) {
          const grants = await ownGrants(bus);
          answer = await bus.call("enter", { channel: name, params, key, ...(grants[0] && { grants }) });
        }
        if (isOver) return void bus.call("leave", { id: answer.id }).catch(() => {});
        if (answer.id !== id) {
          if (wasIn) down();
          const before = own;
          ({ id, private: own } = answer);
          follow(answer);
          // Those that it has no more; of the others it keeps its position.
          for (const channel of streams.keys()) if (!(channel in answer.streams)) unfollow(channel);
          if (before && before !== own) unfollow(before);
        }
        return up(!!wasIn);
      } catch (error) {
        if (isOver) return;
        if (!isPassing(error)) {
          end();
          tell("rejected", error);
          throw error;
        }
        await new Promise((resolve) => (timer = setTimeout(resolve, PAUSE)));
        if (isOver) return;
      }
  }

  function again() {
    entering = entering.then(() => isOver || begin());
    entering.catch(() => {});
  }

  /** The server refuses a stream. A permission that is over is asked for again, by entering once more. */
  function refuse(channel, refusal) {
    if (isOver || (refusal.retry && refusal.code !== "forbidden")) return; // the bus asks again by itself
    if (refusal.code !== "forbidden" || now() < refusedAt.get(channel) + RENEWED) {
      end();
      tell("rejected", refusal);
      return;
    }
    refusedAt.set(channel, now());
    renewing.add(channel);
    if (id) bus.call("leave", { id }).catch(() => {});
    id = null;
    again();
  }

  const forget = bus.on("state", (state, { message } = {}) => {
    if (AWAY.includes(state)) down();
    else if (state === "connecting" && message) isInDoubt = true;
    else if (state === "connected" && id && (isInDoubt || !isTold)) {
      isInDoubt = false;
      again();
    }
  });

  function end() {
    isOver = true;
    clearTimeout(timer);
    forget();
    for (const channel of [...streams.keys()]) unfollow(channel);
    granted.get(bus)?.shown.delete(tokens);
  }

  entering = begin();
  entering.catch(() => {}); // `rejected` is told, and whoever performs

  async function attempt(action, data, options) {
    await entering;
    if (isOver) throw Object.assign(new Error("gone"), { code: "gone" });
    const { result } = await bus.call("perform", { id, action, data, key: randomKey() }, options);
    return result;
  }

  return {
    channel: name,
    params,
    get ready() { return entering; },
    perform: (action, data = {}, options) =>
      attempt(action, data, options).catch((error) => {
        if (error.code !== "gone" || isOver) throw error;
        id = null;
        again();
        return attempt(action, data, options);
      }),
    leave() {
      if (isOver) return;
      end();
      if (id) bus.call("leave", { id }).catch(() => {});
    },
  };
}
