// The options of a reference that this page cannot choose, but keeps when all images are replaced.

import { percentText } from "./words.js";

/**
 * What they are, in words and as fields of the form of a load. Empty: there are none.
 * @param {import("./messages.js").Reference} reference
 * @returns {{words: string, fields: import("./load_options.js").LoadFields}}
 */
export function keptOptions({ coreset, searchRadius, regionOfInterest, approximateSearch, scales, whiteLevel, sensitivity }) {
  /** @type {[boolean, string, string, string][]} whether it is set, words, field, value */
  const options = [
    [coreset !== null, coreset?.ratio ? `a coreset of ${percentText(coreset.ratio)}` : `a coreset of ${coreset?.max_patches} patches`, "coreset", JSON.stringify(coreset)],
    [searchRadius !== null, `a search radius of ${searchRadius}`, "search_radius", String(searchRadius)],
    [regionOfInterest.length > 0, "a region of interest", "region_of_interest", JSON.stringify(regionOfInterest)],
    [approximateSearch, "approximate search", "approximate_search", "true"],
    [scales > 1, `${scales} sizes of the items`, "scales", String(scales)],
    [whiteLevel !== null, `a white level of ${whiteLevel}`, "white_level", String(whiteLevel)],
    [sensitivity !== 1, `a sensitivity of ${sensitivity}`, "sensitivity", String(sensitivity)],
  ];
  const set = options.filter(([isSet]) => isSet);
  return { words: set.map(([, words]) => words).join(", "), fields: Object.fromEntries(set.map(([, , field, value]) => [field, value])) };
}
