// messagebus-alpine: a plugin for Alpine 3.
//
//   <ul x-data="{ notes: [] }" x-channel="/notes" @message="notes.push($event.detail.data)">
//
// x-channel is a channel's name, or an expression that gives one. Each message is an event `message` on the element, with
// {channel, data, globalId, messageId}; a refusal is an event `refused`. $messagebus is {state, transport}.

import { MessageBus } from "#bus";

export function plugin(Alpine) {
  const seen = Alpine.reactive({ state: MessageBus.state, transport: MessageBus.transport });
  MessageBus.on("state", (state, { transport }) => Object.assign(seen, { state, transport }));
  Alpine.magic("messagebus", () => seen);

  Alpine.directive("channel", (element, { expression }, { effect, evaluateLater, cleanup }) => {
    let handle, followed;
    const tell = (type, detail) => element.dispatchEvent(new CustomEvent(type, { detail }));
    function follow(channel) {
      if (channel === followed) return;
      handle?.();
      followed = channel;
      handle = channel && MessageBus.subscribe(
        channel,
        (data, globalId, messageId) => tell("message", { channel, data, globalId, messageId }),
        { onRefused: (refusal) => tell("refused", refusal) },
      );
    }
    cleanup(() => handle?.());
    if (expression.startsWith("/")) return follow(expression);
    const evaluate = evaluateLater(expression);
    effect(() => evaluate(follow));
  });
}

export default plugin;
