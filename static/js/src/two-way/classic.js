// messagebus-two-way.js: for a plain <script> behind that of messagebus.js.

import { MessageBus } from "#bus";
import { install } from "./install.js";

install(MessageBus);
