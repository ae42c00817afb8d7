// messagebus-htmx.js: for a plain <script>, behind htmx's.

import { register } from "./htmx.js";

register(globalThis.htmx);
