import MessageBus, { createMessageBus } from "flask-messagebus";

MessageBus.subscribe("/chat", (data) => console.log(data));
console.log("vite:", MessageBus.status(), createMessageBus !== undefined);
