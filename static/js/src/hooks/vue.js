// messagebus-vue: composables for Vue 3.

import { MessageBus } from "#bus";
import { onScopeDispose, readonly, ref, toValue, watch } from "vue";

/** {bus, state, transport} of a bus, of the page's own without one; the latter two as refs. */
export function useMessageBus(bus = MessageBus) {
  const state = ref(bus.state), transport = ref(bus.transport);
  onScopeDispose(bus.on("state", (next, info) => {
    state.value = next;
    transport.value = info.transport;
  }));
  return { bus, state: readonly(state), transport: readonly(transport) };
}

/**
 * Follows a channel as long as the component, or the scope, is there. `channel` may be a ref or a getter; null follows none.
 * Returns {refused}: a ref of why the channel is refused, or null.
 */
export function useChannel(channel, callback, { lastId = null, bus = MessageBus } = {}) {
  const refused = ref(null);
  watch(() => toValue(channel), (name, before, onCleanup) => {
    refused.value = null;
    if (name == null) return;
    const handle = bus.subscribe(name, callback, { lastId, onRefused: (refusal) => (refused.value = refusal) });
    onCleanup(handle.unsubscribe);
  }, { immediate: true });
  return { refused: readonly(refused) };
}
