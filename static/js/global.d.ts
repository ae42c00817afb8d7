// Types for messagebus.js, the plain script: it exports nothing, and sets the global MessageBus.
import "./messagebus.mjs";
export {};
