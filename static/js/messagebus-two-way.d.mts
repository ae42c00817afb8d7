// Types of messagebus-two-way: importing it gives the page's MessageBus the methods that are declared here.
import type { MessageBus, Refusal } from "./messagebus.mjs";

/** Somebody who is in a channel: what the server says of them. */
export interface Member<Info = any> {
  /** A number or a string; 7 is not "7". Tabs and devices with the same id are one member. */
  id: number | string;
  info: Info;
}

/** A channel that is watched. Calling it ends that, as `unsubscribe` does. */
export interface Room<Info = any> {
  (): void;
  readonly channel: string;
  /** Those who are there, in no order; null until they are known, and where the room is too large to name them. */
  readonly members: Member<Info>[] | null;
  /** How many there are; null until that is known. */
  readonly count: number | null;
  /** Resolves with the room when it is watched; rejects, with the `code` of the refusal, where the channel may not be followed. */
  readonly ready: Promise<Room<Info>>;
  unsubscribe(): void;
}

export interface RoomListeners<Info = any> {
  /** Somebody has come who was not there. Not called for those who are there at the beginning. */
  onJoin?: (member: Member<Info>) => void;
  /** Somebody has gone, and was away for the server's `presence_grace`. */
  onLeave?: (member: Member<Info>) => void;
  /** Members, their info or the count are others than before; also once when they are first known. */
  onChange?: (room: Room<Info>) => void;
  onRefused?: (refusal: Refusal) => void;
}

/** What happens to a subscription to a channel class. */
export interface ChannelListeners<Message = any> {
  /** The class has taken it; `reconnected`: it had it before. */
  connected?: (event: { reconnected: boolean }) => void;
  /** The connection is lost or refused, or the bus was stopped. Once it is there again the client enters by itself, and misses nothing of its streams. */
  disconnected?: () => void;
  /** The class has rejected it, or a stream is no longer allowed. It has ended. */
  rejected?: (refusal: Refusal | Error) => void;
  /** A message of one of its streams, or what the class transmits to this client. */
  received?: (message: Message) => void;
}

/** A subscription to a channel class of the server. */
export interface ChannelSubscription {
  readonly channel: string;
  readonly params: object;
  /** Resolves when the class has taken it; rejects where it has not. */
  readonly ready: Promise<void>;
  /**
   * Calls an action of the class; its result. Sent again where the answer is lost, it runs once.
   * Rejects with a `code` for programs: `unknown_action`, `too_many_actions`, `internal`, ….
   */
  perform<Result = any>(action: string, data?: object, options?: { timeout?: number }): Promise<Result>;
  /** Ends it. */
  leave(): void;
}

/** Gives a further bus the methods of this part. */
export declare function install(bus: MessageBus): MessageBus;

declare module "./messagebus.js" {
  interface MessageBus {
    /**
     * Subscribes to a channel class of the server, on whatever transport.
     * @param params What the class sees as `self.params`.
     * @throws TypeError that names what does not fit: the name, the params or a listener.
     */
    channel<Message = any>(name: string, params?: object, listeners?: ChannelListeners<Message>): ChannelSubscription;
    /**
     * Watches who is in a channel, on whatever transport. To be there oneself, follow the channel.
     * @throws TypeError that names what does not fit: the channel or a listener.
     */
    presence<Info = any>(channel: string, listeners?: RoomListeners<Info>): Room<Info>;
  }
}
