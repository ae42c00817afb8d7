// The page's one bus, whoever loads it first: a script, a module, or the same script again.

import { createMessageBus } from "./bus.js";

export const MessageBus = globalThis.MessageBus?.createMessageBus ? globalThis.MessageBus : createMessageBus();
globalThis.MessageBus = MessageBus;
