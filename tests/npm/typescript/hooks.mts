import { useChannel, useMessageBus } from "flask-messagebus/react";
import { useChannel as useVueChannel, useMessageBus as useVueBus } from "flask-messagebus/vue";
import plugin from "flask-messagebus/alpine";
import { register } from "flask-messagebus/htmx";
import type { MessageBusStatus } from "flask-messagebus/status";
import { ref } from "vue";

export function Notes(): string {
  const { state, transport, bus } = useMessageBus();
  const { refused } = useChannel<{ text: string }>("/notes", ({ text }, globalId) => console.log(text.trim(), globalId), { lastId: "@7" });
  useChannel(null, () => {}, { bus });
  return `${state} ${transport} ${refused?.code}`;
}

export function setup(): string {
  const { refused } = useVueChannel(ref("/notes"), (data) => console.log(data));
  useVueChannel(() => null, () => {});
  return `${useVueBus().state.value} ${refused.value?.message}`;
}

export const status: MessageBusStatus | undefined = undefined;
console.log("hooks:", typeof plugin, typeof register);
