// One connection or request, from its opening to its end. What it says after its end is ignored.

import { credentials } from "../credentials.js";
import { failure, parameters } from "../wire.js";
import { openEventSource } from "./eventsource.js";
import { openPoll } from "./poll.js";
import { openWebSocket } from "./websocket.js";

const ANSWER_TIMEOUT = 10000; // ms for a command, for credentials, for a transport that is tried beside another
const BUSY = 500; // ms; a timer that is so late found the page busy, and what it waits for may be next in the queue

const OPEN = {
  websocket: openWebSocket, eventsource: openEventSource, streaming: openPoll, "long-polling": openPoll, polling: openPoll,
};

export const isPoll = (name) => OPEN[name] === openPoll;

/** `role`: "main" (in use, or to be), "probe" (asks if the server is there) or "trial" (of a better transport). */
export function makeLink(client, name, role, asked) {
  const { environment, channels, settings, plan } = client;
  const { clearTimer, now, setTimer } = environment;
  const calls = new Map(); // commands that wait for their answer, by id
  let lastCall = 0, timer, isEnded = false;

  function answered({ id, ok, error }) {
    const settle = calls.get(id);
    if (settle) settle(error && failure(error.code, error.message), ok);
    else if (error) environment.log("warn", "the server refused", error);
  }

  const failed = (error) => link.ended({ message: String(error) });

  const link = {
    name, role, asked,
    since: now(),
    batches: 0,
    /** When the first batch came; undefined before. */
    openedAt: undefined,
    /** A held poll that is not held, to learn at once what there is; a poll that is not held. */
    greeting: false, plain: false,
    /** What the server has said: a position has moved; come back after as many ms. */
    progress: false, reconnect: undefined,
    /** Sends a frame; only open WebSockets have it. */
    send: undefined, close: undefined,

    get isProbe() { return link.role === "probe"; },
    isCurrent: () => !isEnded,

    async open() {
      link.sawBytes();
      link.deadline(role === "trial" ? ANSWER_TIMEOUT : plan.patience);
      try {
        const { headers, grants: own } = await credentials(settings);
        if (isEnded) return;
        link.since = now();
        await OPEN[name](link, client, {
          headers,
          parameters: (entries, grants = own) => parameters(entries, channels.epoch, grants),
        });
      } catch (error) {
        failed(error);
      }
    },

    /** Ends it without a word to the plan. */
    drop() {
      isEnded = true;
      clearTimer(timer);
      if (link.close) link.close();
      for (const settle of calls.values()) settle(failure("disconnected", "no answer came"));
    },

    /** It has failed unless bytes come within `ms`. */
    deadline(ms, fail = () => failed(`nothing came for ${Math.round(now() - link.heard)} ms`)) {
      const due = now() + ms;
      clearTimer(timer);
      timer = setTimer(() => (now() - due > BUSY ? link.deadline(BUSY, fail) : fail()), ms);
    },

    sawBytes() {
      link.heard = now();
      clearTimer(timer);
    },

    receive(batch) {
      if (isEnded) return;
      link.sawBytes();
      link.batches++;
      client.receive(link, batch);
    },

    /** Text that is a batch, or an answer to a command. */
    take(text) {
      if (isEnded) return;
      try {
        const body = JSON.parse(text);
        if (Array.isArray(body)) return link.receive(body);
        link.sawBytes();
        answered(body);
      } catch (error) {
        failed(error);
      }
    },

    /** Sends a command; a promise of its answer. */
    call: (command, timeout = ANSWER_TIMEOUT) => new Promise((resolve, reject) => {
      const id = ++lastCall;
      link.send({ ...command, id });
      const late = setTimer(() => settle(failure("timeout", "no answer in time")), timeout);
      const settle = (error, ok) => {
        clearTimer(late);
        calls.delete(id);
        if (error) reject(error);
        else resolve(ok || {});
      };
      calls.set(id, settle);
    }),

    /** In good order, or with a problem. */
    ended(problem) {
      if (!isEnded) client.ended(link, problem);
    },
  };
  return link;
}
