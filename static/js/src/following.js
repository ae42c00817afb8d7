// Keeps the connection and the channels in step: what comes, what goes, and what is refused.

import { areAsked, credentials } from "./credentials.js";
import { positionsOf } from "./channels.js";
import { log, now } from "./environment.js";

const AGAIN = 30000; // ms until a channel is asked for again, where time mends it and the server does not say when
const TIMES = ["unavailable", "internal", "timeout", "credentials"]; // codes of whole commands that time mends

export function makeFollowing(client) {
  const { channels, settings, emit } = client;
  let timer;

  /** Gathers changes: many in a row make one request, and no more requests than minPollInterval allows. */
  function changed() {
    clearTimeout(timer);
    if (client.running) timer = setTimeout(apply, client.requestedAt + settings.minPollInterval - now());
  }

  function apply() {
    if (now() < client.requestedAt + settings.minPollInterval) return changed(); // there was a request meanwhile
    const { link } = client;
    const { needed, removed } = channels.compare(client.asked);
    if (!channels.wanted()[0]) return client.rest();
    if (!link && client.isWaiting()) return;
    const isSocket = link?.name === "websocket";
    // A socket that is not open yet comes here again when it is.
    if ((!needed[0] && !removed[0]) || (isSocket && !link.send)) return client.ensure();
    if (link) client.requestedAt = now();
    if (!isSocket) return client.connect(link?.isProbe);
    leave(link, removed);
    if (removed[0]) forgive(Infinity, "too_many_channels"); // there is room again
    follow(link, needed);
  }

  async function leave(link, names) {
    if (!names[0]) return;
    for (const channel of names) link.asked.set(channel, null);
    // Only when it is answered is it certain that nothing more of the old comes, and they may be followed again.
    await link.call({ unsubscribe: names }).catch(() => {});
    for (const channel of names) link.asked.delete(channel);
    changed();
  }

  async function follow(link, entries) {
    const isFree = ({ channel, entry }) => !link.asked.has(channel) || link.asked.get(channel)?.entry === entry;
    const all = entries.map(channels.request).filter(isFree);
    if (!all[0]) return;
    for (const one of all) link.asked.set(one.channel, one);
    try {
      const { grants } = await credentials(settings);
      if (link.isEnded) return;
      const { refused: refusals } = await link.call({ subscribe: positionsOf(all), grants: grants[0] && grants });
      channels.acceptRefusals(Object.entries(refusals || {}), link.asked);
      for (const one of all) {
        if (link.asked.get(one.channel) !== one || !channels.isFollowed(one.entry)) continue;
        channels.activate(one);
        channels.joined(one);
      }
    } catch ({ code = "credentials", message }) {
      const refusal = { code, message, retry: TIMES.includes(code) };
      if (!link.isEnded) channels.acceptRefusals(all.map(({ channel }) => [channel, refusal]), link.asked);
    }
  }

  // ---- refusals ----

  /** Asks again for what was refused: all, or what is due by `until`, or for this reason. */
  function forgive(until = Infinity, code = undefined) {
    for (const entry of channels.followed.values()) {
      if (!entry.refused || entry.until > until || (code && entry.refused.code !== code)) continue;
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
      told ||= onRefused;
      if (onRefused) client.guard("onRefused", onRefused, refusal);
    }
    if (!told) log("warn", "the server refused", channel, code, message);
  }

  return { changed, refused, forgive };
}
