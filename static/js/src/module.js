// messagebus.mjs and messagebus.cjs: for `import` and `require`.

import { MessageBus } from "./page-bus.js";

const { createMessageBus } = MessageBus;
export { MessageBus as default, MessageBus, createMessageBus };
