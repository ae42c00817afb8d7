// messagebus-htmx: an extension for htmx 2.
//
//   <ul hx-ext="messagebus" mb-subscribe="/notes" mb-swap="beforeend"></ul>
//
// Each message is swapped into the element, or into what `mb-target` selects, as `mb-swap` says ("innerHTML" without one).
// A message is HTML: a text, or an object with a text `html`. Before that, `mb:message` is an event on the element, with
// {channel, data, globalId, messageId, html}; preventDefault() leaves the swap out. `mb:refused` is a channel that is refused.
// `mb-last-id` says where to begin, if not where the page was made. HTML of a channel is trusted, as that of any answer.

import { MessageBus } from "#bus";

// A fragment that replaces another that follows the same channel comes a moment after the other has gone. What is said in
// between is not lost, as the channel is kept for so long.
const KEPT = 250; // ms

export function register(htmx) {
  const handles = new WeakMap();

  function follow(element) {
    const channel = element.getAttribute("mb-subscribe");
    if (!channel || handles.has(element)) return;
    const given = element.getAttribute("mb-last-id");
    const lastId = given === null ? null : given.startsWith("@") ? given : Number(given);
    const onRefused = (refusal) => htmx.trigger(element, "mb:refused", refusal);
    handles.set(element, MessageBus.subscribe(channel, (data, globalId, messageId) => {
      if (!element.isConnected) return leave(element); // taken out, and not by htmx
      const html = typeof data === "string" ? data : data?.html;
      if (!htmx.trigger(element, "mb:message", { channel, data, globalId, messageId, html }) || typeof html !== "string") return;
      const selector = element.getAttribute("mb-target");
      const target = selector ? htmx.find(selector) : element;
      const swapStyle = element.getAttribute("mb-swap") || "innerHTML";
      if (target) htmx.swap(target, html, { swapStyle, swapDelay: 0, settleDelay: 20 });
    }, { lastId, onRefused }));
  }

  function leave(element) {
    const handle = handles.get(element);
    handles.delete(element);
    if (handle) setTimeout(handle, KEPT);
  }

  const withChannel = (root) =>
    [root, ...root.querySelectorAll("[mb-subscribe]")].filter((one) => one.hasAttribute?.("mb-subscribe"));

  htmx.defineExtension("messagebus", {
    onEvent(name, { target }) {
      if (name === "htmx:afterProcessNode") withChannel(target).forEach(follow);
      else if (name === "htmx:beforeCleanupElement") withChannel(target).forEach(leave);
      return true;
    },
  });
}
