// The ES module door to messagebus.js, which is a classic script so that a plain <script src> can load it as well.
import "./messagebus.js";

const { MessageBus } = globalThis;
const { createMessageBus } = MessageBus;
export { MessageBus as default, MessageBus, createMessageBus };
