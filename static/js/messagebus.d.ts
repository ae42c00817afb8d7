// Types of messagebus.js, and what each setting means. Times are in milliseconds unless it says otherwise.

/** How messages come here, from the best to the least. */
export type Transport = "websocket" | "eventsource" | "streaming" | "long-polling" | "polling";

/**
 * - `stopped`: before `start()` and after `stop()`
 * - `idle`: started, and nothing to do: no channel is followed, or the bus is paused and keeps as much as it may
 * - `connecting`: tries to connect, and was not connected since `start()`
 * - `connected`: the bus has spoken on the connection in use; between two polls as well
 * - `reconnecting`: tries to connect, and was connected before
 * - `offline`: the browser says that there is no network; tried only every `backgroundCallbackInterval`
 * - `refused`: the server refuses this client, and a person has to mend it (a login, a permission); `retry()` asks again
 */
export type State = "stopped" | "idle" | "connecting" | "connected" | "reconnecting" | "offline" | "refused";

/**
 * Where to begin on a channel. `n >= 0`: every message after number n; `0` is the whole backlog. `-1`: what comes from now
 * on. `-k`: the last k - 1 messages, then what comes. `"@g"`: every message after global id g. Of a pattern, such as
 * `/news/*`, all positions are global ids.
 */
export type Position = number | `@${number}`;

/**
 * `data` is any JSON value; `globalId` counts over all channels, `messageId` over this one, both without holes. `channel` is
 * where it was published: of a pattern, such as `/news/*`, one of its channels.
 */
export type Callback<Data = any> = (data: Data, globalId: number, messageId: number, channel: string) => void;

export interface StateInfo {
  /** The transport in use, or in use before the connection broke; null where none has worked yet. */
  transport: Transport | null;
  /** What went wrong, in words; for people and logs. */
  message?: string;
  /** HTTP status of the answer that refused: 401 and 403 for clients that are not let in, 429 for too many requests. */
  status?: number;
  /** The error code of the server, such as `"forbidden"`; `"redirected"` (to a login page, it seems), or `"not_a_batch"` for
   * a page in place of an answer of the bus. */
  code?: string;
  /** The channel that was refused, where it is one channel; the state is what it was. */
  channel?: string;
  /** Where that answer came from, after redirects. */
  url?: string;
  /** true: time mends it. false: a person has to. Undefined for ordinary failures of a connection. */
  retry?: boolean;
  /** Milliseconds until the next attempt. */
  delay?: number;
}

/** Messages of a channel that are gone for good: every id in `after < id < before`. */
export interface Gap {
  /** null: the store was reset, so nothing that is known of the channel holds any more. */
  after: number | null;
  before: number;
}

/** A channel that the server refuses, by itself; the others are not disturbed. */
export interface Refusal {
  channel: string;
  /** `"forbidden"`, `"invalid_channel"`, `"too_many_channels"`, `"unavailable"` … */
  code: string;
  /** In words; for people and logs. */
  message: string;
  /** true: the client asks again by itself, later. false: it asks again only after `retry()`, other grants or a
   * new subscription. */
  retry: boolean;
}

export interface SubscribeOptions {
  /** See `subscribe`. */
  lastId?: Position | null;
  /** Called when the channel is refused. */
  onRefused?: ((refusal: Refusal) => void) | null;
}

/** What `subscribe` returns. Calling it undoes the subscription, as `unsubscribe` does. */
export interface Subscription {
  (): void;
  readonly channel: string;
  /** The id of the last message that this subscription was given; before the first, where it begins. */
  readonly position: Position;
  /**
   * Resolves when the channel has been joined: what is published from then on is not missed. Rejects, with the `code` of the
   * refusal, where a person has to mend it; afterwards it is a new promise. Undone before, it stays pending.
   */
  readonly ready: Promise<{ channel: string; position: Position }>;
  onRefused: ((refusal: Refusal) => void) | null;
  unsubscribe(): void;
}

/** What `on` listens to, and what listeners are given. */
export interface Events {
  state: (state: State, info: StateInfo) => void;
  gap: (channel: string, gap: Gap) => void;
  refused: (refusal: Refusal) => void;
}

export interface Settings {
  /**
   * Transports to use, the preferred first. The next one is taken where one fails to open or stays silent; what failed is
   * remembered in localStorage. Better ones are tried again, beside the one in use, after 5 minutes, then after 10, 20, 40,
   * 60. One that had worked is given up after three failures in a row, and only while the server answers polls. websocket and
   * eventsource are passed over where `headers` are set; where none of the list can be used, polling is.
   * Default: all five, in the order of their type.
   */
  transports: readonly Transport[];
  /** The mount point: a path or an URL. Default `"/"`. Requests go to `baseUrl + "message-bus/" + clientId + …`. */
  baseUrl: string;
  /** Headers to send with each request, or a function that is asked for them before each. Browsers send none with websocket
   * and eventsource. Default `{}`. */
  headers: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** Tokens of the server's `grant(...)`, for channels that take one; or a function that is asked for them before each
   * connection, and once more where a channel is refused. Default: none. */
  grants: string[] | (() => string[] | Promise<string[]>);
  /** Whether cookies go to a bus of another origin. (A websocket takes them in any case.) Default true. */
  withCredentials: boolean;
  /** This page's id, 1 to 128 of `A-Z a-z 0-9 _ . ~ -`. Default: random digits for each bus. */
  clientId: string;
  /** Called when the state or the transport changes, and at each failure. */
  onStateChange: ((state: State, info: StateInfo) => void) | null;
  /** Called for each channel on which messages were lost, before the messages that follow the loss. */
  onGap: ((channel: string, gap: Gap) => void) | null;
  /** Between two polls that brought nothing, while the page is shown. Default 15000. */
  callbackInterval: number;
  /** Between two polls while the page is hidden, or `shouldLongPollCallback` says no. Default 60000. */
  backgroundCallbackInterval: number;
  /** The least time between two polls, two attempts, and two changes of what is followed. Default 100. */
  minPollInterval: number;
  /** The longest delay after failures; also the delay after a request that the server refused. Default 180000. */
  maxPollInterval: number;
  /**
   * The least time between two polls or attempts while the page is hidden; counted over all pages of the origin, with the
   * help of localStorage, also those with message-bus-client. Default 1500.
   */
  minHiddenPollInterval: number;
  /** false rules out streaming and long-polling. Default true. */
  enableLongPolling: boolean;
  /** false rules out streaming. Default true. */
  enableChunkedEncoding: boolean;
  /** Hold polls also while the page is hidden. Default false. */
  alwaysLongPoll: boolean;
  /** Says for each poll whether the server may hold it, in place of the page's visibility. Default null. */
  shouldLongPollCallback: (() => boolean) | null;
  /** How long a websocket, an eventsource or a stream may stay silent at its beginning; on slow lines it takes itself more
   * time. Default 3000. */
  firstChunkTimeout: number;
  /** Held polls after which streaming is tried again. A number of requests. Default 30. */
  retryChunkedAfterRequests: number;
  /** Silence after which a connection counts as broken. Above the server's heartbeat_interval (25 s). Default 40000. */
  heartbeatTimeout: number;
  /** Shows on the console each change of the state and each failure, with the time (UTC), the number of the attempt and the
   * transport. Default false. */
  debug: boolean;
}

/** The browser's side of the bus. Settings are properties; those of a connection count from the next one on. Setting one to
 * what does not fit is a TypeError. */
export interface MessageBus extends Settings {
  readonly version: string;
  readonly state: State;
  /** The transport in use; null before the first connection and after `stop()`. */
  readonly transport: Transport | null;
  /**
   * Connects, once there is a channel. Where it is started already it goes on at once, as `retry()`.
   * @throws TypeError for a setting that is unknown or does not fit; then none of them is set.
   */
  start(settings?: Partial<Settings>): void;
  /** Ends every connection and timer. Channels and positions stay: `start()` goes on where this left off. */
  stop(): void;
  /** Goes on at once, whatever it was waiting for; asks again for channels that were refused. */
  retry(): void;
  /** Listens, beside `onStateChange` and `onGap` and as many others as one likes. Returns the undo. */
  on<Name extends keyof Events>(event: Name, listener: Events[Name]): () => void;
  /**
   * Keeps what arrives from now on for `resume()`, in order. With 1000 messages kept the connection is closed, and
   * `resume()` goes on from there: what the server's backlog no longer holds by then is told by `onGap`.
   */
  pause(): void;
  resume(): void;
  /** `"paused"` from `pause()` to `resume()`, started or not. */
  status(): "started" | "paused" | "stopped";
  /**
   * Follows a channel. Without `lastId` it begins where the page was rendered, if the page says so, else at -1; on a channel
   * that is followed already, where that is. Each subscription has its own position: one that begins earlier than its channel
   * stands gets what it asks for, and the others do not get it twice. A channel that is left and followed again in the same
   * turn keeps its position and its connection.
   * Exceptions of the callback are shown on the console and stop nothing.
   * @returns its undo, which also tells how it goes.
   * @throws TypeError that names what does not fit: the channel, the callback or `lastId`.
   */
  subscribe<Data = any>(channel: string, callback: Callback<Data>, options?: Position | SubscribeOptions | null): Subscription;
  /**
   * Removes a callback from a channel, or all callbacks; `callback` may also be what `subscribe` returned. `"/room/*"`
   * stands for every channel that begins so.
   * @returns whether there was something to remove.
   */
  unsubscribe(channel: string, callback?: Callback | Subscription): boolean;
  /**
   * Publishes, where the server lets clients do so: over an open WebSocket, else by a request. The messages of a page are stored
   * in their order, and each once, also where an answer is lost and it is sent again.
   * Rejects with an Error whose `code` is `"disconnected"` or `"timeout"` (no answer came within `timeout`, by default 10000: it
   * may or may not have been published) or what the server says, such as `"forbidden"`, with its `message`, and with `field` and
   * `retry_after` (seconds) where it met a limit. Where something in front of the bus refuses the request, `code` is
   * `"not_an_answer"`, or `"redirected"` (to a login page, it seems), with `status`, `url` and a `message` that begins what came.
   * `transient`: for those who are connected now, and not kept; it is sent once, `message_id` is null. `key`: of what is transient,
   * a reader that is behind is given the newest with this key: 1 to 64 of `A-Z a-z 0-9 _ . ~ -`.
   */
  publish(
    channel: string,
    data: unknown,
    options?: { timeout?: number; transient?: boolean; key?: string },
  ): Promise<{ message_id: number | null }>;
  /** Sends the server a command, as `publish` does, and resolves with its result: docs/protocol.md lists them. */
  call(verb: string, value: unknown, options?: { timeout?: number }): Promise<any>;
  /** Positions for later subscribes without `lastId`, each until its channel has moved; and the epoch of the store they are of. */
  continueFrom(positions: Record<string, Position>, epoch?: string): void;
  /** What goes on, for a report: states, attempts, the last problem, channels and positions. No tokens. Its form may change. */
  diagnostics(): Record<string, unknown>;
  createMessageBus: typeof createMessageBus;
}

/** A further bus, independent of the page's own. */
export function createMessageBus(settings?: Partial<Settings>): MessageBus;

/** The page's own bus. */
declare const MessageBus: MessageBus;
export { MessageBus };
export default MessageBus;

type PageBus = MessageBus;
declare global {
  /** Set by `<script src="…/messagebus.js">`, and by importing it. */
  var MessageBus: PageBus;
}
