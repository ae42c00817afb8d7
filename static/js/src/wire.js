// Addresses and parameters of requests: docs/protocol.md in code.

import { positionsOf } from "./channels.js";

/** Characters of a query; servers refuse request lines of 4 KB. */
export const QUERY_LIMIT = 3000;

export const endpoint = ({ baseUrl, clientId }, path) => `${baseUrl.replace(/\/?$/, "/")}message-bus/${clientId}/${path}`;

/** Positions, epoch and grants as a query string or a form. */
export function parameters(entries, epoch, grants) {
  const pairs = new URLSearchParams(positionsOf(entries));
  if (epoch) pairs.append("__epoch", epoch);
  if (grants[0]) pairs.append("__grants", grants);
  return String(pairs).replace(/\+/g, "%20");
}

export const failure = (code, message) => Object.assign(new Error(message), { code });
