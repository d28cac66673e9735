// How large the network sees images: what can be chosen, and what a reference has already.

const SIDES_PX = [224, 320, 448, 640, 1024];
const TILE_PX = 448;

/**
 * One choice.
 * @typedef {object} InputSize
 * @property {string} value
 * @property {string} words
 * @property {Record<string, string>} fields of the form of a load
 * @property {number | null} sidePx null: tiles; 0: that of the profile
 */

/** @type {InputSize} */
const USUAL = { value: "", words: "As the profile has it", fields: {}, sidePx: 0 };
/** @type {InputSize} */
const TILES = { value: "tiles", words: `Full size, in tiles of ${TILE_PX} px`, fields: { "input.tile_px": String(TILE_PX) }, sidePx: null };

/** @returns {InputSize} */
const ofSide = (sidePx) => ({ value: String(sidePx), words: `${sidePx} px`, fields: { "input.longer_side_px": String(sidePx) }, sidePx });

/**
 * All choices, and the one that a reference has.
 * @param {import("./messages.js").Reference | null} current
 * @returns {{sizes: InputSize[], own: InputSize}}
 */
export function inputSizes(current) {
  const own = current ? sizeOf(current.input) : USUAL;
  const sides = SIDES_PX.map(ofSide);
  const others = [USUAL, ...sides, TILES].filter(({ value }) => value !== own.value);
  const sizes = [...others, own].sort((one, other) => order(one) - order(other));
  return { sizes, own };
}

/** The profile's first, then the sides, then the tiles. */
const order = ({ sidePx }) => sidePx ?? Infinity;

/** @returns {InputSize} */
function sizeOf({ sidePx, isAuto, tilePx, tileOverlap }) {
  if (tilePx) {
    const fields = { "input.tile_px": String(tilePx), "input.tile_overlap": String(tileOverlap) };
    if (sidePx) fields["input.longer_side_px"] = String(sidePx);
    return { value: "own-tiles", words: `${sidePx ? `${sidePx} px` : "Full size"}, in tiles of ${tilePx} px`, fields, sidePx: null };
  }
  if (isAuto) return { value: "auto", words: "By the size of the first image", fields: { "input.auto": "true" }, sidePx: 0 };
  return sidePx ? ofSide(sidePx) : USUAL;
}
