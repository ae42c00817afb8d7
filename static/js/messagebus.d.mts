// For those who import messagebus.mjs by its path; the types are in messagebus.d.ts.
export * from "./messagebus.js";
export { default } from "./messagebus.js";
