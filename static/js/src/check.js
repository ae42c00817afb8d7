// What pages give, checked where they give it.

export const isFunction = (value) => typeof value === "function";

/** Throws a TypeError that names what is wrong; what would be right is said in the documentation of it. */
export function check(fits, what, value) {
  if (!fits) throw new TypeError(`MessageBus: bad ${what}: ${value}`);
}
