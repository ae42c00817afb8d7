// Types of messagebus.mjs; they are in messagebus.d.ts.
export * from "./messagebus.js";
export { default } from "./messagebus.js";
