// messagebus-two-way.mjs and .cjs: importing it is enough for the page's bus.

import { MessageBus } from "#bus";
import { install } from "./install.js";

install(MessageBus);
export { install };
