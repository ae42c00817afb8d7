// Addresses and parameters of requests: docs/protocol.md in code.

/** Characters of a query; servers refuse request lines of 4 KB. */
export const QUERY_LIMIT = 3000;

export const endpoint = ({ baseUrl, clientId }, path) => `${baseUrl.replace(/\/?$/, "/")}message-bus/${clientId}/${path}`;

/**
 * Positions, epoch and grants as a query string or a form. `asked`: channel -> {position}. It also says that a channel may be
 * refused by itself.
 */
export function parameters(asked, epoch, grants) {
  const pairs = new URLSearchParams([...asked].map(([channel, { position }]) => [channel, position]));
  if (epoch) pairs.append("__epoch", epoch);
  if (grants[0]) pairs.append("__grants", grants);
  pairs.append("__refusals", "t");
  return `${pairs}`.replace(/\+/g, "%20");
}

/** An Error with what is known of it: {code, message, ...}. */
export const failure = (problem) => Object.assign(new Error(problem.code), problem);
