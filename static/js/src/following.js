// Keeps the connection and the channels in step: what comes, what goes, and what is refused.

import { areAsked, credentials } from "./credentials.js";
import { positionsOf } from "./channels.js";

const AGAIN = 30000; // ms until a channel is asked for again, where time mends it and the server does not say when
const TIMES = ["unavailable", "internal", "timeout", "credentials"]; // codes of whole commands that time mends

export function makeFollowing(client) {
  const { channels, environment, settings, emit } = client;
  const { clearTimer, now, setTimer } = environment;
  let timer, appliedAt = -Infinity;

  /** Gathers changes: many in a row make one request, and no more requests than minPollInterval allows. */
  function changed() {
    clearTimer(timer);
    if (client.running) timer = setTimer(apply, appliedAt + settings.minPollInterval - now());
  }

  function apply() {
    if (now() < appliedAt + settings.minPollInterval) return changed(); // there was a request meanwhile
    const { link } = client;
    const { added, removed, moved } = channels.compare(client.asked);
    if (!channels.wanted()[0]) return client.rest();
    if (!link && client.isWaiting()) return;
    const isSocket = link?.name === "websocket";
    // A socket that is not open yet comes here again when it is.
    if (![...added, ...removed, ...moved][0] || (isSocket && !link.send)) return client.ensure();
    if (link) appliedAt = now();
    if (!isSocket) return client.connect(link?.isProbe);
    leave(link, removed);
    if (removed[0]) forgive(Infinity, "too_many_channels"); // there is room again
    follow(link, added.filter(({ channel }) => !link.asked.has(channel)), moved);
  }

  async function leave(link, names) {
    if (!names[0]) return;
    for (const channel of names) link.asked.set(channel, null);
    // Only when it is answered is it certain that nothing more of the old comes, and they may be followed again.
    await link.call({ unsubscribe: names }).catch(() => {});
    for (const channel of names) link.asked.delete(channel);
    changed();
  }

  async function follow(link, added, moved) {
    const restarts = moved.map((entry) => ({ entry, channel: entry.channel, position: channels.restart(entry) }));
    const all = [...added.map((entry) => ({ entry, channel: entry.channel, position: entry.position })), ...restarts];
    if (!all[0]) return;
    for (const one of all) link.asked.set(one.channel, one);
    try {
      const { grants } = await credentials(settings);
      if (!link.isCurrent()) return;
      const { refused: refusals } = await link.call({ subscribe: positionsOf(all), grants: grants[0] && grants });
      channels.acceptRefusals(refusals, link.asked);
      for (const one of all) {
        if (link.asked.get(one.channel) !== one || !channels.isFollowed(one.entry)) continue;
        if (restarts.includes(one)) channels.activate(one.entry, one.position);
        channels.joined(one);
      }
    } catch ({ code = "credentials", message }) {
      const refusal = { code, message, retry: TIMES.includes(code) };
      if (link.isCurrent()) channels.acceptRefusals(Object.fromEntries(all.map(({ channel }) => [channel, refusal])), link.asked);
    }
  }

  // ---- refusals ----

  /** Asks again for what was refused: all, or what is due by `until`, or for this reason. */
  function forgive(until = Infinity, code = undefined) {
    for (const entry of channels.followed.values()) {
      if (!entry.refused || entry.until > until || entry.refused.code !== (code ?? entry.refused.code)) continue;
      entry.refused = entry.renewed = undefined;
      changed();
    }
  }

  /** A channel was refused, by itself. */
  function refused(entry, { code, message, retry = false, retry_after: seconds }) {
    const { channel, subscriptions } = entry;
    if (!entry.renewed && code === "forbidden" && areAsked(settings)) {
      entry.renewed = true; // with fresh grants, before anybody is told
      return changed();
    }
    const refusal = { channel, code, message, retry };
    entry.refused = refusal;
    entry.until = retry ? now() + (seconds * 1000 || AGAIN) : Infinity;
    let told = emit("refused", refusal);
    emit("state", client.state, { transport: client.transport, ...refusal });
    for (const one of subscriptions) {
      one.settle();
      const { onRefused } = one.handle;
      if (onRefused) told = client.guard("onRefused", onRefused, refusal) || true;
    }
    if (!told) environment.log("warn", "the server refused", channel, code, message);
  }

  return {
    changed, refused,

    /** A request was made that counts as one for a change. */
    paced(at = now()) {
      appliedAt = at;
    },

    /** A server that refuses a whole request for one channel's sake. Whether there was something to do about it. */
    refusedAsWhole({ asked }, { status, field, ...refusal }) {
      const isOne = status < 500 && !!asked.get(field);
      if (isOne) channels.acceptRefusals({ [field]: { ...refusal, retry: false } }, asked);
      return isOne;
    },

    forgive,
  };
}
