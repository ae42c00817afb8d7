// Types of messagebus-vue: composables for Vue 3.
import type { MaybeRefOrGetter, Ref } from "vue";
import type { Callback, MessageBus, Position, Refusal, State, Transport } from "./messagebus.cjs";

/** The state of a bus, of the page's own without one. */
export function useMessageBus(bus?: MessageBus): {
  bus: MessageBus;
  state: Readonly<Ref<State>>;
  transport: Readonly<Ref<Transport | null>>;
};

/** Follows a channel as long as the component, or the scope, is there; null follows none. `refused`: why the channel is refused. */
export function useChannel<Data = any>(
  channel: MaybeRefOrGetter<string | null | undefined>,
  callback: Callback<Data>,
  options?: { lastId?: Position | null; bus?: MessageBus },
): { refused: Readonly<Ref<Refusal | null>> };
