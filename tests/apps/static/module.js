import MessageBus, { createMessageBus } from "/message-bus/static/messagebus.mjs";
import "./browser.js";

window.imported = { MessageBus, createMessageBus };
