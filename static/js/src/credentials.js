// Who the client is: headers and grants, which may be functions, and those may take their time.

export const areAsked = ({ headers, grants }) => [headers, grants].some((one) => typeof one === "function");

/** Calls `use({headers, grants})`: at once, or where one of them is a function when it has answered. */
export function credentials(settings, use, failed) {
  try {
    if (!areAsked(settings)) return use(settings);
    const [headers, grants] = [settings.headers, settings.grants].map((one) => (typeof one === "function" ? one() : one));
    Promise.all([headers, grants]).then(([h, g]) => use({ headers: h, grants: [g || []].flat() })).catch(failed);
  } catch (error) {
    failed(error);
  }
}
