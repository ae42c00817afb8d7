import MessageBus, { createMessageBus } from "flask-messagebus";

const other = createMessageBus({ baseUrl: "/other/" });
console.log("esbuild:", MessageBus.status(), other.baseUrl, MessageBus === globalThis.MessageBus);
