// messagebus-alpine.js: for a plain <script>, before Alpine's or behind it.

import { plugin } from "./alpine.js";

document.addEventListener("alpine:init", () => globalThis.Alpine.plugin(plugin));
