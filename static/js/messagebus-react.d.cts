// Types of messagebus-react: hooks for React 18 and newer.
import type { Callback, MessageBus, Position, Refusal, State, Transport } from "./messagebus.cjs";

/** The state of a bus, of the page's own without one; the component is rendered again when it changes. */
export function useMessageBus(bus?: MessageBus): { bus: MessageBus; state: State; transport: Transport | null };

/**
 * Follows a channel as long as the component is there; null follows none. `callback` may be another function at each rendering.
 * `refused`: why the channel is refused.
 */
export function useChannel<Data = any>(
  channel: string | null | undefined,
  callback: Callback<Data>,
  options?: { lastId?: Position | null; bus?: MessageBus },
): { refused: Refusal | null };
