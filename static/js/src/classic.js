// messagebus.js: a plain <script>. What the template helper wrote into the tag counts.

import { MessageBus } from "./page-bus.js";

const page = globalThis.document?.currentScript?.dataset;
if (page) {
  if (page.baseUrl) MessageBus.baseUrl = page.baseUrl;
  if (page.grants) MessageBus.grants = page.grants.split(",");
  if (page.heartbeatTimeout) MessageBus.heartbeatTimeout = +page.heartbeatTimeout;
  if ("start" in page) MessageBus.start(); // nothing is followed yet
  MessageBus.continueFrom(JSON.parse(page.channels || "{}"), page.epoch);
}
