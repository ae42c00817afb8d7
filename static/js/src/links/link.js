// One connection or request, from its opening to its end. What it says after its end is ignored.

import { credentials } from "../credentials.js";
import { LONGEST, now } from "../environment.js";
import { QUERY_LIMIT, failure, parameters } from "../wire.js";
import { openEventSource } from "./eventsource.js";
import { openPoll } from "./poll.js";
import { openWebSocket } from "./websocket.js";

const ANSWER_TIMEOUT = 10000; // ms for a command, for credentials, for a transport that is tried beside another
const BUSY = 500; // ms; a timer that is so late found the page busy, and what it waits for may be next in the queue

const OPEN = { websocket: openWebSocket, eventsource: openEventSource };

/** Whether a transport is one of requests, `streaming` among them. */
export const isPoll = (name) => !OPEN[name];

/** `isProbe`: it asks if the server is there. `isTrial`: of another transport, beside the link in use. */
export function makeLink(client, name, isProbe, isTrial) {
  const { channels, settings, plan } = client;
  const asked = channels.ask(!isTrial);
  const calls = {};
  let lastCall = 0, timer;

  const failed = (message) => link.ended({ message: String(message) });

  const link = {
    name, asked, isProbe,
    /** Commands that wait for their answer, by id. */
    calls,
    batches: 0,
    // openedAt: when the first batch came.
    // greeting: a held poll that is not held, to learn at once what there is. plain: a poll that is not held.
    // progress, reconnect: what the server has said: a position has moved; come back after as many ms.
    // send: sends a frame; only open WebSockets have it. close

    async open() {
      link.sawBytes();
      link.deadline(isTrial ? ANSWER_TIMEOUT : plan.patience);
      try {
        const { headers, grants } = await credentials(settings);
        if (link.isEnded) return;
        link.since = now();
        let query = parameters(asked, channels.epoch, grants);
        if (OPEN[name] === openWebSocket && query.length > QUERY_LIMIT) {
          // What does not fit into the address follows when it is open: all of it, grants included.
          asked.clear();
          query = parameters(asked, channels.epoch, []);
        }
        if (isPoll(name)) return await openPoll(link, client, query, headers);
        const source = OPEN[name](link, client, query);
        link.close = () => source.close();
        source.onmessage = ({ data }) => link.take(data);
      } catch (error) {
        failed(error);
      }
    },

    /** Ends it without a word to the plan. */
    drop() {
      link.isEnded = true;
      clearTimeout(timer);
      link.close?.();
      for (const id in calls) calls[id](failure({ code: "disconnected" }));
    },

    /** It has failed unless bytes come within `ms`. */
    deadline(ms, fail = () => failed("timeout")) {
      const due = now() + ms;
      clearTimeout(timer);
      timer = setTimeout(() => (now() - due > BUSY ? link.deadline(BUSY, fail) : fail()), ms);
    },

    sawBytes() {
      link.heard = now();
      clearTimeout(timer);
    },

    receive(batch) {
      if (link.isEnded) return;
      link.sawBytes();
      link.batches++;
      client.receive(link, batch);
    },

    /** Text that is a batch, or an answer to a command. */
    take(text) {
      if (link.isEnded) return;
      try {
        const body = JSON.parse(text);
        if (Array.isArray(body)) return link.receive(body);
        link.sawBytes();
        const { id, ok, error } = body;
        calls[id]?.(error && failure(error), ok);
      } catch (error) {
        failed(error);
      }
    },

    /** Sends a command; a promise of its answer. */
    call: (command, timeout = ANSWER_TIMEOUT) => new Promise((resolve, reject) => {
      const id = ++lastCall;
      link.send({ ...command, id });
      const late = setTimeout(() => calls[id](failure({ code: "timeout" })), Math.min(timeout, LONGEST));
      calls[id] = (error, ok = {}) => {
        clearTimeout(late);
        delete calls[id];
        if (error) reject(error);
        else resolve(ok);
      };
    }),

    /** In good order, or with a problem. */
    ended(problem) {
      if (!link.isEnded) client.ended(link, problem);
    },
  };
  return link;
}
