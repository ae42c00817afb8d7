/* Follows channels over the best transport that gets through. Settings are explained in messagebus.d.ts.
 * No `export`, which would not parse in a plain <script>: modules import messagebus.mjs. */
(() => {
  "use strict";

  const SETTINGS = {
    transports: ["websocket", "eventsource", "streaming", "long-polling", "polling"],
    baseUrl: "/", headers: {}, grants: [], clientId: "", onStateChange: null, onGap: null,
    callbackInterval: 15000, backgroundCallbackInterval: 60000,
    minPollInterval: 100, maxPollInterval: 180000, minHiddenPollInterval: 1500,
    enableLongPolling: true, enableChunkedEncoding: true, alwaysLongPoll: false, shouldLongPollCallback: null,
    firstChunkTimeout: 3000, retryChunkedAfterRequests: 30, heartbeatTimeout: 65000,
  };
  const SEPARATOR = "\r\n|\r\n";
  const QUEUE_LIMIT = 1000; // messages kept while paused
  const QUERY_LIMIT = 3000; // characters; servers refuse lines of 4 KB
  const STRIKES = 3; // failures after which a transport that had worked is left
  const TICK = 5000; // ms between two looks at the clock
  const SETTLED = 5000; // ms after which a connection has proved itself
  const PLAIN_TIMEOUT = 20000; // ms for a poll that is not held
  const UPGRADE_FIRST = 300000, UPGRADE_MOST = 3600000; // ms until a better one is tried again
  const REMEMBERED = 86400000; // ms
  const LAST_POLL = "__mbLastAjax"; // message-bus-client's name for it

  /* Bytes in any pieces -> one string per batch. Feeding it nothing ends the stream. */
  function batchSplitter(emit) {
    const decoder = new TextDecoder(); // keeps half a character until the other half comes
    let rest = "";
    return (bytes) => {
      const parts = (rest + decoder.decode(bytes, { stream: !!bytes })).split(SEPARATOR);
      rest = bytes ? parts.pop() : ""; // in the end: the one batch of a server that does not stream
      for (const text of parts) if (text) emit(text.split("\r\n||\r\n").join(SEPARATOR));
    };
  }

  function createMessageBus(options = {}) {
    const { environment = {}, ...settings } = options;
    const world = (name) => (name in environment ? environment[name] : globalThis[name]);
    const now = () => world("Date").now(), later = (fn, ms) => world("setTimeout")(fn, ms);
    const cancel = (timer) => world("clearTimeout")(timer);
    const log = (level, ...what) => world("console")[level]("MessageBus:", ...what);
    const random = () => world("Math").random();
    const hidden = () => world("document")?.visibilityState === "hidden";

    const channels = new Map(); // channel -> {position, callbacks}; a new object when it is left and followed anew
    const pagePositions = {}; // where channels stood when the page was made
    const queue = []; // received, not yet delivered
    const worked = new Set(); // transports that opened in this page
    let running = false, paused = false, draining = false, state = "stopped", epoch;
    let link = null; // the one connection or request; what an older one still says is ignored
    let current, inUse = null, told; // transport to use; the last that opened; what onStateChange was told
    let failures = 0, strikes = 0; // in a row: of any kind; of this transport to open
    let down = false, offline = false, refused = false;
    let sequence = 0, calls = 0, notBefore = 0;
    let upgradeAt = 0, upgradeGap = UPGRADE_FIRST, heldRequests = 0;
    let retryTimer, changeTimer, tickTimer, tickDue, tickHidden;

    const guard = (what, fn, ...args) => {
      try {
        if (fn) fn(...args);
      } catch (error) {
        log("error", `${what} threw`, error); // and the others get theirs
      }
    };

    function setState(next, info = {}) {
      const before = told;
      state = next;
      told = next + inUse;
      if (told === before && !info.message) return;
      guard("onStateChange", bus.onStateChange, next, { transport: inUse, ...info });
    }

    // ---- what the server sends ----

    function receive(me, batch) {
      if (link !== me) return;
      if (!Array.isArray(batch)) throw new TypeError("the answer is not a batch");
      me.heard = now();
      opened(me);
      // Not if it was left and followed anew since this connection began: that is for the next.
      const followed = (channel) => me.asked.get(channel) === channels.get(channel) && channels.get(channel);
      for (const { channel, data, global_id, message_id } of batch) {
        if (channel === "/__status" || channel === "/__gap") {
          for (const [name, value] of Object.entries(data)) {
            const entry = followed(name), gap = value.before && value;
            // After a gap: the next connection must not hear of it again, even if nothing follows.
            const position = gap ? gap.before - 1 : value;
            if (name === "__epoch") epoch = value;
            if (!entry) continue;
            me.progress ||= entry.position !== position;
            entry.position = position;
            if (gap) queue.push({ entry, channel: name, gap });
          }
        } else {
          const entry = followed(channel);
          if (!entry || entry.position >= message_id) continue; // a duplicate; "@g" compares as false
          entry.position = message_id;
          me.progress = me.carried = true;
          queue.push({ entry, channel, data, global_id, message_id });
        }
      }
      if (me.carried) failures = 0;
      drain();
      if (paused && queue.length >= QUEUE_LIMIT) drop();
    }

    function drain() {
      if (draining) return; // a callback called resume()
      draining = true;
      let done = 0;
      while (done < queue.length && running && !paused) {
        const { entry, channel, gap, data, global_id, message_id } = queue[done++];
        if (channels.get(channel) !== entry) continue;
        if (gap) guard("onGap", bus.onGap, channel, gap);
        else for (const one of [...entry.callbacks])
          if (entry.callbacks.includes(one)) guard(`a callback of ${channel}`, one.fn, data, global_id, message_id);
      }
      queue.splice(0, done);
      draining = false;
    }

    // ---- one connection after the other ----

    function usable() {
      const plain = !Object.keys(bus.headers).length; // browsers send no headers of ours with the first two
      const can = {
        websocket: plain && world("WebSocket"),
        eventsource: plain && world("EventSource") && parameters(channels).length <= QUERY_LIMIT,
        streaming: bus.enableLongPolling && bus.enableChunkedEncoding,
        "long-polling": bus.enableLongPolling,
        polling: true,
      };
      const list = bus.transports.filter((name) => can[name]);
      return list.length ? list : ["polling"];
    }

    /* Uses the current transport; or, as a probe, one plain poll to learn whether the server is there. */
    function connect(probe = down && current !== "polling" && usable().length > 1) {
      drop();
      if (!running || !channels.size || queue.length >= QUEUE_LIMIT) return;
      const list = usable();
      if (!list.includes(current)) current = list[0];
      const name = probe ? "polling" : current, since = now();
      if (open[name] === poll) {
        const ago = since - stored(LAST_POLL);
        if (hidden() && ago >= 0 && ago < bus.minHiddenPollInterval) return connectLater(500 + random() * 500, probe);
        stored(LAST_POLL, since);
      }
      const me = (link = { name, probe, since, heard: since, asked: new Map(channels), calls: new Map() });
      try {
        open[me.name](me);
      } catch (error) {
        ended(me, { message: String(error) });
      }
    }

    function drop() {
      const me = link;
      link = null;
      cancel(retryTimer);
      if (!me) return;
      cancel(me.timer);
      if (me.close) me.close();
      for (const call of me.calls.values()) call.reject(failure("disconnected", "no answer came"));
    }

    function deadline(me, ms) {
      cancel(me.timer);
      if (link === me) me.timer = later(() => ended(me, { message: `nothing came for ${ms} ms` }), ms);
    }

    function opened(me) {
      if (me.opened) return;
      me.opened = true;
      cancel(me.timer);
      offline = refused = false;
      if (me.probe) return;
      inUse = current;
      if (current === usable()[0]) upgradeGap = UPGRADE_FIRST;
      if (!me.greeting) {
        worked.add(current);
        if (usable()[1] && remembered() !== current) stored(`messagebus:${bus.baseUrl}`, [current, now()]);
      }
      setState("connected");
    }

    /* The link has ended by itself, in good order (a poll was answered) or with a problem: what next? */
    function ended(me, problem) {
      if (link !== me) return;
      drop();
      const settled = me.carried || now() - me.since >= SETTLED;
      if (!problem || (me.opened && settled)) {
        failures = 0;
        if (!me.probe && !me.greeting) strikes = 0;
      }
      if (!problem) return me.probe ? probed() : again(me);
      failures++;
      const { status, retryAfter } = problem;
      if (status === 429 || retryAfter) {
        const asked = retryAfter * 1000 || Date.parse(retryAfter) - now() || 0; // seconds or a date
        return retry(problem, Math.max(asked, status === 429 ? 15000 : 0));
      }
      // 404 may be a deployment; 408 and 425 ask to come again.
      if (status >= 400 && status < 500 && ![404, 408, 425].includes(status)) {
        refused = true;
        log(status === 403 ? "warn" : "error", "the server refused", [...channels.keys()], problem.message);
        return retry(problem, bus.maxPollInterval);
      }
      if (me.opened && settled) return retry(problem);
      if (me.name === "polling" || usable().length < 2) {
        down = true;
        return retry(problem);
      }
      // The transport, or the server? Only the first is a reason to use a lesser one.
      strikes++;
      setState(trouble(), problem);
      connect(true);
    }

    function probed() {
      if (down) { // it was the server: back to what was used before
        down = false;
        strikes = 0;
        return connect();
      }
      if (strikes < (worked.has(current) ? STRIKES : 1)) {
        failures = strikes;
        return retry();
      }
      worked.delete(current);
      strikes = 0;
      upgradeAt = now() + upgradeGap;
      const list = usable(), next = list[list.indexOf(current) + 1];
      current = next || list[0];
      if (next) return connect();
      retry({}, bus.callbackInterval);
    }

    /* After a poll: soon if it brought something or was held, else at the interval. */
    function again(me) {
      const elapsed = now() - me.since, hold = mayHold();
      if (me.name === "long-polling" && !me.plain && ++heldRequests >= bus.retryChunkedAfterRequests) {
        heldRequests = 0;
        if (usable().includes("streaming")) current = "streaming";
      }
      const held = !me.plain && elapsed > 1000; // a server that holds as many as it can answers at once
      const interval = hold ? bus.callbackInterval : bus.backgroundCallbackInterval;
      const wait = me.progress || held || (me.greeting && hold) ? 0 : interval - elapsed;
      connectLater(Math.max(wait, shortest()));
    }

    function connectLater(ms, probe) {
      retryTimer = later(() => connect(probe), ms);
    }

    const shortest = () => (hidden() ? bus.minHiddenPollInterval : bus.minPollInterval);
    const trouble = () => (offline ? "offline" : inUse ? "reconnecting" : "connecting");

    function retry(problem, atLeast = 0) {
      const grown = bus.minPollInterval * 2 ** Math.min(failures, 30);
      // Jitter: not all clients of a server that restarts shall come at once.
      const jittered = Math.min(grown, bus.maxPollInterval) * (0.5 + random() / 2);
      const delay = Math.max(jittered, offline ? bus.backgroundCallbackInterval : shortest(), atLeast);
      if (atLeast) notBefore = now() + atLeast;
      connectLater(delay);
      setState(trouble(), { ...problem, delay });
    }

    // ---- the transports: each reports through opened, receive and ended ----

    const positions = (entries) => Object.fromEntries([...entries].map(([name, { position }]) => [name, position]));
    const endpoint = (path) => `${bus.baseUrl.replace(/\/?$/, "/")}message-bus/${bus.clientId}/${path}`;

    function parameters(asked) {
      const pairs = new URLSearchParams(positions(asked));
      if (epoch) pairs.append("__epoch", epoch);
      if (bus.grants[0]) pairs.append("__grants", bus.grants);
      return String(pairs).replace(/\+/g, "%20");
    }

    const mayHold = () => bus.alwaysLongPoll || (bus.shouldLongPollCallback ? bus.shouldLongPollCallback() : !hidden());

    async function poll(me) {
      // A held poll is silent while all is well, so the first is not held: then we know.
      me.greeting = me.name === "long-polling" && state !== "connected";
      me.plain = me.name === "polling" || me.greeting || !mayHold();
      const stream = me.name === "streaming" && !me.plain;
      const abort = new (world("AbortController"))();
      me.close = () => abort.abort();
      deadline(me, me.plain ? PLAIN_TIMEOUT : stream ? bus.firstChunkTimeout : bus.heartbeatTimeout);
      try {
        const response = await world("fetch")(endpoint(me.plain ? "poll?dlp=t" : "poll"), {
          method: "POST",
          // An empty epoch asks for the store's; URLSearchParams make it a form.
          body: new URLSearchParams(`${parameters(me.asked)}&__seq=${++sequence}${epoch ? "" : "&__epoch="}`),
          headers: { "X-SILENCE-LOGGER": "true", ...(stream ? {} : { "Dont-Chunk": "true" }), ...bus.headers },
          cache: "no-store",
          signal: abort.signal,
        });
        const { ok, status, headers, body } = response;
        if (!ok) {
          const message = `${status} ${(await response.text()).slice(0, 300)}`;
          return ended(me, { status, retryAfter: headers.get("Retry-After"), message });
        }
        if (stream && body) {
          const feed = batchSplitter((text) => receive(me, JSON.parse(text)));
          const reader = body.getReader();
          for (let part = {}; link === me && !part.done; feed(part.value)) {
            part = await reader.read();
            me.heard = now();
            if (!me.opened) deadline(me, bus.heartbeatTimeout); // bytes get through, if slowly
          }
        } else receive(me, JSON.parse(await response.text()));
        ended(me, me.opened ? undefined : { message: "an empty answer" });
      } catch (error) {
        ended(me, { message: String(error) });
      }
    }

    const open = {
      polling: poll, "long-polling": poll, streaming: poll,

      eventsource(me) {
        const source = new (world("EventSource"))(endpoint(`sse?${parameters(me.asked)}`));
        me.close = () => source.close();
        deadline(me, bus.firstChunkTimeout);
        source.onopen = () => me.opened || deadline(me, bus.firstChunkTimeout);
        source.onmessage = (event) => take(me, event.data);
        // By itself it would come back with the old positions, and without backoff.
        source.onerror = () => ended(me, { message: "the connection broke" });
      },

      websocket(me) {
        // No subprotocol: browsers hang up on a server that does not confirm it.
        const first = new Map();
        for (const one of me.asked) if (parameters(first.set(...one)).length > QUERY_LIMIT) first.delete(one[0]);
        me.asked = first; // the rest follows when it is open
        const url = new URL(endpoint(`ws?${parameters(first)}`), world("document")?.baseURI || world("location")?.href);
        const socket = new (world("WebSocket"))(url.href.replace(/^http/, "ws"));
        me.close = () => socket.close();
        me.send = (frame) => socket.send(JSON.stringify(frame));
        deadline(me, bus.firstChunkTimeout);
        socket.onopen = () => {
          if (link !== me) return;
          me.heard = now();
          opened(me);
          changed();
        };
        socket.onmessage = (event) => take(me, event.data);
        socket.onclose = ({ code, reason }) => ended(me, { message: `closed: ${code} ${reason}` });
      },
    };

    function take(me, text) {
      try {
        const body = JSON.parse(text);
        if (me.send && !Array.isArray(body)) answered(me, body);
        else receive(me, body);
      } catch (error) {
        ended(me, { message: String(error) });
      }
    }

    const hex = (bytes) => Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
    const failure = (code, message) => Object.assign(new Error(message), { code });

    function answered(me, { id, ok, error }) {
      me.heard = now();
      const call = me.calls.get(id);
      me.calls.delete(id);
      if (error && !call) log("warn", "the server refused", error);
      else if (call) error ? call.reject(failure(error.code, error.message)) : call.resolve(ok);
    }

    // ---- channels come and go ----

    function changed() {
      cancel(changeTimer);
      if (running) changeTimer = later(apply, 0); // many subscribes in a row make one request
    }

    function apply() {
      if (!channels.size) return drop();
      if (!link) return failures && !refused ? undefined : connect(); // a backoff goes on
      const added = [...channels].filter(([channel, entry]) => link.asked.get(channel) !== entry);
      const removed = [...link.asked.keys()].filter((channel) => link.asked.get(channel) && !channels.has(channel));
      if (!added.length && !removed.length) return;
      // Left and followed anew: on one connection old and new messages could not be told apart.
      if (link.name !== "websocket" || added.some(([channel]) => link.asked.has(channel))) return connect(link.probe);
      if (!link.opened) return; // it comes here again when it is
      for (const channel of removed) link.asked.set(channel, null);
      for (const one of added) link.asked.set(...one);
      if (removed.length) link.send({ unsubscribe: removed });
      if (added.length) link.send({ subscribe: positions(added), grants: bus.grants[0] && bus.grants });
    }

    // ---- what pages tell each other ----

    function stored(key, value) {
      try {
        const storage = world("localStorage");
        if (value) storage.setItem(key, JSON.stringify(value));
        return JSON.parse(storage.getItem(key));
      } catch {
        return null; // forbidden, full or not there: every page is on its own
      }
    }

    /* Which transport worked, over page loads. */
    function remembered() {
      const { 0: name, 1: at } = stored(`messagebus:${bus.baseUrl}`) || {};
      return now() - at < REMEMBERED && name;
    }

    // ---- the page and the clock ----

    function wake(anew) {
      if (now() < notBefore) return;
      if (!anew && link && now() - link.heard <= bus.heartbeatTimeout) return;
      failures = 0;
      connect();
    }

    const listeners = {
      window: {
        online() {
          offline = false;
          wake(true); // over the new network
        },
        offline() {
          offline = true;
          failures = 0;
          drop();
          retry({ message: "offline" }); // slowly: a server on this machine is still there
        },
        pagehide: drop, // or the page is not kept for the back button
        pageshow: (event) => wake(event.persisted),
      },
      document: {
        visibilitychange() {
          tickHidden = true; // since the last tick
          if (!hidden()) wake(false);
        },
        resume: () => wake(true),
      },
    };
    const listen = (verb) => {
      for (const target of Object.keys(listeners))
        for (const [type, fn] of Object.entries(listeners[target])) world(target)?.[verb]?.(type, fn);
    };

    function tick() {
      const late = now() - tickDue, list = usable();
      // So late: the machine slept, and connections died. Timers of hidden pages are up to a minute late anyway.
      const slept = late > (tickHidden ? 70000 : TICK);
      scheduleTick();
      if (slept) wake(true);
      else if (link?.opened && now() - link.heard > bus.heartbeatTimeout) ended(link, { message: "no heartbeat" });
      else if (now() >= upgradeAt && state === "connected" && !hidden() && inUse === current && current !== list[0]) {
        upgradeGap = Math.min(upgradeGap * 2, UPGRADE_MOST);
        upgradeAt = now() + upgradeGap;
        strikes = 0;
        current = list[0];
        connect();
      }
    }

    function scheduleTick() {
      tickHidden = hidden();
      tickDue = now() + TICK;
      tickTimer = later(tick, TICK);
    }

    // ---- what pages call ----

    const bus = {
      ...SETTINGS,
      transports: [...SETTINGS.transports],
      headers: {},
      clientId: hex(world("crypto").getRandomValues(new Uint8Array(16))),
      createMessageBus,
      get state() { return state; },
      get transport() { return inUse; },

      start(given) {
        configure(given);
        if (!bus.transports.every((name) => open[name])) throw new TypeError(`expected some of ${SETTINGS.transports}`);
        if (running) return;
        running = true;
        current = remembered();
        upgradeAt = now() + upgradeGap;
        listen("addEventListener");
        scheduleTick();
        setState("connecting");
        drain();
        changed();
      },

      stop() {
        if (!running) return;
        running = down = offline = refused = false;
        failures = strikes = notBefore = 0;
        drop();
        cancel(tickTimer);
        cancel(changeTimer);
        listen("removeEventListener");
        inUse = current = null;
        setState("stopped");
      },

      pause() { paused = true; },

      resume() {
        if (!paused) return;
        const full = queue.length >= QUEUE_LIMIT;
        paused = false;
        drain();
        if (full) changed();
      },

      status: () => (paused ? "paused" : running ? "started" : "stopped"),

      subscribe(channel, fn, lastId) {
        if (typeof channel !== "string" || !/^\/(?!__)/.test(channel))
          throw new TypeError(`expected a channel ("/name", not "/__..."), got ${channel}`);
        if (typeof fn !== "function") throw new TypeError(`expected a function, got ${fn}`);
        const position = lastId ?? pagePositions[channel] ?? -1;
        if (!Number.isSafeInteger(position) && !(typeof position === "string" && /^@\d+$/.test(position)))
          throw new TypeError(`expected lastId to be an integer or "@" and a global id, got ${lastId}`);
        delete pagePositions[channel];
        const one = { fn, undo: () => remove(channel, one.undo) };
        if (channels.has(channel)) channels.get(channel).callbacks.push(one);
        else channels.set(channel, { position, callbacks: [one] }), changed();
        return one.undo;
      },

      unsubscribe(channel, fn) {
        const all = channel.endsWith("*"), prefix = channel.slice(0, -1);
        const names = [...channels.keys()].filter((name) => (all ? name.startsWith(prefix) : name === channel));
        return names.map((name) => remove(name, fn)).includes(true);
      },

      publish: (channel, data) => new Promise((resolve, reject) => {
        if (!link?.send || !link.opened) return reject(failure("unsupported", "needs an open websocket"));
        link.calls.set(++calls, { resolve, reject });
        link.send({ publish: { channel, data }, id: calls });
      }),

      continueFrom(known, ofEpoch) {
        Object.assign(pagePositions, known);
        if (ofEpoch) epoch = ofEpoch;
      },

      diagnostics: () => ({
        status: bus.status(), state, transport: inUse, trying: current, clientId: bus.clientId, epoch, failures,
        queued: queue.length, channels: positions(channels),
      }),
    };

    function remove(channel, fn) {
      const entry = channels.get(channel);
      const kept = entry?.callbacks.filter((one) => fn && one.fn !== fn && one.undo !== fn);
      if (kept?.length === entry?.callbacks.length) return false;
      entry.callbacks = kept;
      if (!kept.length) channels.delete(channel), changed();
      return true;
    }

    function configure(given = {}) {
      for (const [name, value] of Object.entries(given)) {
        if (!(name in SETTINGS)) throw new TypeError(`MessageBus has no setting ${name}`);
        bus[name] = value;
      }
    }

    configure(settings);
    return bus;
  }

  // Loaded twice, still one bus.
  const bus = globalThis.MessageBus?.createMessageBus ? globalThis.MessageBus : createMessageBus();
  globalThis.MessageBus = bus;

  // From the template helper; nothing in modules.
  const page = globalThis.document?.currentScript?.dataset;
  if (page) {
    if (page.baseUrl) bus.baseUrl = page.baseUrl;
    if (page.grants) bus.grants = page.grants.split(",");
    try {
      bus.continueFrom(JSON.parse(page.channels || "{}"), page.epoch);
    } catch (error) {
      console.error("MessageBus: data-channels", error);
    }
    if ("start" in page) bus.start();
  }
})();
