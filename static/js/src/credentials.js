// Who the client is: headers and grants, which may be functions, and those may take their time.

import { isFunction } from "./check.js";

const ask = (value) => (isFunction(value) ? value() : value);

export const areAsked = ({ headers, grants }) => isFunction(headers) || isFunction(grants);

/** {headers, grants} as of now. */
export async function credentials({ headers, grants }) {
  const [asHeaders, asGrants] = await Promise.all([ask(headers), ask(grants)]);
  return { headers: asHeaders, grants: [asGrants || []].flat() };
}
