// The same verbs over either client; what arrives is in `received`.
(() => {
  const received = (window.received = []), followers = {};

  window.follow = (channel, lastId) => {
    followers[channel] = (data, globalId, messageId) => received.push({ channel, data, globalId, messageId });
    MessageBus.subscribe(channel, followers[channel], lastId);
  };
  window.leave = (channel) => MessageBus.unsubscribe(channel, followers[channel]);
  // Where the client stands on a channel: the one it would ask from.
  window.position = (channel) =>
    MessageBus.callbacks
      ? MessageBus.callbacks.find((one) => one.channel === channel)?.last_id
      : MessageBus.diagnostics().channels[channel];
})();
