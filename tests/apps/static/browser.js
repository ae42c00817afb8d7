// Writes down what arrives, for the tests to look at. From the query: `channel`, any number of them; `settings`, JSON for
// start(); `stopped`: do not start, the test will.
(() => {
  const query = new URLSearchParams(location.search);
  const received = (window.received = []), gaps = (window.gaps = []), states = (window.states = []);
  const started = performance.now();

  MessageBus.onGap = (channel, gap) => gaps.push({ channel, ...gap, messagesBefore: received.length });
  MessageBus.onStateChange = (state, info) => states.push({ state, ...info, at: performance.now() - started });
  for (const channel of query.getAll("channel"))
    MessageBus.subscribe(channel, (data, globalId, messageId) => received.push({ channel, data, globalId, messageId }));
  const settings = JSON.parse(query.get("settings"));
  if (query.has("stopped")) Object.assign(MessageBus, settings);
  else if (settings) MessageBus.start(settings);
})();
