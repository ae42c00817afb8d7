// Types of messagebus.js, and what each setting means. Times are in milliseconds unless it says otherwise.

/** How messages come here, from the best to the least. */
export type Transport = "websocket" | "eventsource" | "streaming" | "long-polling" | "polling";

/**
 * - `connecting`: started, never yet connected
 * - `connected`: messages come in; between two polls as well
 * - `reconnecting`: was connected, and tries to be again
 * - `offline`: the browser says that there is no network; tried only every `backgroundCallbackInterval`
 * - `stopped`: before `start()` and after `stop()`
 */
export type State = "connecting" | "connected" | "reconnecting" | "offline" | "stopped";

/**
 * Where to begin on a channel. `n >= 0`: every message after number n; `0` is the whole backlog. `-1`: what comes from now
 * on. `-k`: the last k - 1 messages, then what comes. `"@g"`: every message after global id g.
 */
export type Position = number | `@${number}`;

/** `data` is any JSON value; `globalId` counts over all channels, `messageId` over this one, both without holes. */
export type Callback<Data = any> = (data: Data, globalId: number, messageId: number) => void;

export interface StateInfo {
  /** The transport in use, or in use before the connection broke; null where none has worked yet. */
  transport: Transport | null;
  /** What went wrong, in words; for people and logs. */
  message?: string;
  /** HTTP status of the answer that refused: 401 and 403 for channels that one may not follow, 429 for too many requests. */
  status?: number;
  /** Milliseconds until the next attempt. */
  delay?: number;
}

/** Messages of a channel that are gone for good: every id in `after < id < before`. */
export interface Gap {
  /** null: the store was begun anew, and what is known of the channel means nothing any more. */
  after: number | null;
  before: number;
}

export interface Settings {
  /**
   * Transports to use, the preferred first. The next one is taken where one fails to open or stays silent; what worked is
   * remembered in localStorage for a day. Better ones are tried again after 5 minutes, then after 10, 20, 40, 60. One that
   * had worked is given up after three failures in a row, and only while the server answers polls. websocket and
   * eventsource are passed over where `headers` are set; where none of the list can be used, polling is.
   * Default: all five, in the order of their type.
   */
  transports: Transport[];
  /** The mount point: a path or an URL. Default `"/"`. Requests go to `baseUrl + "message-bus/" + clientId + …`. */
  baseUrl: string;
  /** Headers to send with each request. Browsers send none with websocket and eventsource. Default `{}`. */
  headers: Record<string, string>;
  /** Tokens of the server's `grant(...)`, for channels that take one. Sent with every request, so that they may be
   * replaced before they expire. Default: none. */
  grants: string[];
  /** This page's id, 1 to 128 of `A-Z a-z 0-9 _ . ~ -`. Default: 32 random hexadecimal digits for each bus. */
  clientId: string;
  /** Called when the state or the transport changes, and at each failure. */
  onStateChange: ((state: State, info: StateInfo) => void) | null;
  /** Called for each channel on which messages were lost, before the messages that follow the loss. */
  onGap: ((channel: string, gap: Gap) => void) | null;
  /** Between two polls that brought nothing, while the page is shown. Default 15000. */
  callbackInterval: number;
  /** Between two polls while the page is hidden, or `shouldLongPollCallback` says no. Default 60000. */
  backgroundCallbackInterval: number;
  /** The least time between two polls, and where delays after failures begin; they double. Default 100. */
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
  /** How long a websocket, an eventsource or a stream may stay silent at its beginning. Default 3000. */
  firstChunkTimeout: number;
  /** Held polls after which streaming is tried again. A number of requests. Default 30. */
  retryChunkedAfterRequests: number;
  /** Silence after which a connection counts as broken. Above the server's heartbeat_interval (25 s). Default 65000. */
  heartbeatTimeout: number;
}

/** The browser's side of the bus. Settings are properties; those of a connection count from the next one on. */
export interface MessageBus extends Settings {
  readonly state: State;
  /** The transport in use; null before the first connection and after `stop()`. */
  readonly transport: Transport | null;
  /**
   * Connects, once there is a channel. Calling it twice does no harm.
   * @throws TypeError for an unknown setting or transport.
   */
  start(settings?: Partial<Settings>): void;
  /** Ends every connection and timer. Channels and positions stay: `start()` goes on where this left off. */
  stop(): void;
  /**
   * Keeps what arrives from now on for `resume()`, in order. With 1000 messages kept the connection is closed, and
   * `resume()` goes on from there: what the server's backlog no longer holds by then is told by `onGap`.
   */
  pause(): void;
  resume(): void;
  /** `"paused"` from `pause()` to `resume()`, started or not. */
  status(): "started" | "paused" | "stopped";
  /**
   * Follows a channel. Without `lastId` it begins where the page was rendered, if the page says so, else at -1. A further
   * callback on a channel that is followed already joins it at its position; its `lastId` is not used.
   * Exceptions of the callback are shown on the console and stop nothing.
   * @returns its own undo, which removes this one subscription and says whether it was still there.
   * @throws TypeError that says what was expected.
   */
  subscribe<Data = any>(channel: string, callback: Callback<Data>, lastId?: Position | null): () => boolean;
  /**
   * Removes a callback from a channel, or all callbacks; `callback` may also be what `subscribe` returned. `"/room/*"`
   * stands for every channel that begins so.
   * @returns whether there was something to remove.
   */
  unsubscribe(channel: string, callback?: Callback | (() => boolean)): boolean;
  /**
   * Publishes, where the server lets clients do so. Only over an open websocket.
   * Rejects with an Error whose `code` is `"unsupported"` (no websocket now), `"disconnected"` (no answer came: it may or
   * may not have been published) or what the server says, such as `"forbidden"`.
   */
  publish(channel: string, data: unknown): Promise<{ message_id: number | null }>;
  /** Positions for later subscribes without `lastId`, each used once; and the epoch of the store they are of. */
  continueFrom(positions: Record<string, Position>, epoch?: string): void;
  /** What goes on, to look at. Its form may change. */
  diagnostics(): Record<string, unknown>;
  createMessageBus: typeof createMessageBus;
}

/** What stands in for the globals of the same names, for tests. A name given as undefined is a global that is missing. */
export interface Environment {
  fetch?: unknown; WebSocket?: unknown; EventSource?: unknown; AbortController?: unknown; crypto?: unknown;
  setTimeout?: unknown; clearTimeout?: unknown; Date?: unknown; Math?: unknown; console?: unknown;
  document?: unknown; window?: unknown; location?: unknown; localStorage?: unknown;
}

/** A further bus, independent of the page's own. */
export function createMessageBus(options?: Partial<Settings> & { environment?: Environment }): MessageBus;

/** The page's own bus. */
declare const MessageBus: MessageBus;
export { MessageBus };
export default MessageBus;

type PageBus = MessageBus;
declare global {
  /** Set by `<script src="…/messagebus.js">`, and by importing it. */
  var MessageBus: PageBus;
}
