// What a change of a reference means for the images that are still kept.

import { call } from "./api.js";
import { counted, ratioText } from "./words.js";

const ANOMALIES = 12;
const INTACT = 8;
const LEAST_SENSITIVITY = 0.1;
const BELOW = 0.99; // of the threshold, so that rounding does not matter

/**
 * @typedef {object} Effect
 * @property {import("./wall_state.js").Tile} tile the image that was added
 * @property {import("./wall_state.js").Tile[]} anomalies others, with their verdicts now
 * @property {import("./wall_state.js").Tile[]} intact
 */

/**
 * Inspects the last images of a reference again, beginning with the one that was added.
 * @param {import("./wall_state.js").Tile} tile
 * @param {import("./wall_state.js").WallState} state
 * @param {import("./messages.js").Reference} reference
 * @param {string} before its revision before the change
 * @param {() => void} onChange
 * @returns {Promise<Effect | null>} null: the reference has changed again meanwhile
 */
export async function inspectAgain(tile, state, reference, before, onChange) {
  const isOther = (other) => other !== tile && other.isKept && other.referenceId === reference.id;
  const anomalies = state.anomalies.filter(isOther).slice(0, ANOMALIES);
  const intact = state.tiles.filter((other) => isOther(other) && !other.isAnomalous).slice(0, INTACT);
  const wereIntact = new Set(intact.filter((each) => wasIntact(each, before)));
  for (const each of [tile, ...anomalies, ...intact]) {
    if (state.references.get(reference.id)?.revision !== reference.revision) return null;
    await inspectOne(each);
    onChange();
  }
  const isKnown = (each) => each.again?.revision === reference.revision;
  // An image that is anomalous now was perhaps made so by an earlier change, such as a higher sensitivity.
  const isComparable = (each) => !each.again?.isAnomalous || wereIntact.has(each);
  return { tile, anomalies: anomalies.filter(isKnown), intact: intact.filter(isKnown).filter(isComparable) };
}

/** Whether an image was inspected with a revision, and was intact. */
function wasIntact(tile, revision) {
  return [tile.again, tile].some((verdict) => verdict?.revision === revision && !verdict.isAnomalous);
}

/** The verdict with the current revision, if the server still has the image. */
async function inspectOne(tile) {
  try {
    const { anomaly, reference_revision: revision } = await call("GET", `/watch/inspections/${tile.id}:again`);
    tile.again = { isAnomalous: anomaly.is_anomalous, ratio: anomaly.raw_score / anomaly.raw_threshold, revision };
  } catch (error) {
    if (error.status !== 404) throw error;
    tile.isKept = false;
  }
}

/** @param {Effect} effect */
export function effectText({ tile, anomalies, intact }) {
  const parts = [];
  if (tile.again) {
    const verdict = tile.again.isAnomalous ? "is still above the threshold" : "counts as intact now";
    parts.push(`This image ${verdict}: ${ratioText(tile.again.ratio)}, before ${ratioText(tile.ratio)}.`);
  }
  const fine = anomalies.filter((each) => !each.again?.isAnomalous).length;
  if (anomalies.length === 1) parts.push(`The other anomaly kept here would ${fine ? "count as intact too" : "stay one"}.`);
  else if (anomalies.length) parts.push(`Of the ${anomalies.length} other anomalies kept here, ${fine || "none"} would count as intact.`);
  if (fine) parts.push("If one of them is damaged, press Undo.");
  const bad = intact.filter((each) => each.again?.isAnomalous).length;
  if (bad) parts.push(`Of the last ${counted(intact.length, "intact image")}, ${bad} would be anomalous.`);
  else if (intact.length) parts.push(`The last ${intact.length === 1 ? "intact image" : `${intact.length} intact images`} would stay intact.`);
  return parts.join(" ") || "No image is kept here that could be inspected again.";
}

/**
 * The highest sensitivity, in hundredths, at which the image that was added is intact.
 * @param {Effect} effect
 * @param {import("./messages.js").Reference} reference
 * @returns {number} 0: none is needed, or there is none
 */
export function lowerSensitivity({ tile }, reference) {
  if (!tile.again?.isAnomalous) return 0;
  const sensitivity = Math.floor((100 * BELOW * reference.sensitivity) / tile.again.ratio) / 100;
  return sensitivity >= LEAST_SENSITIVITY ? sensitivity : 0;
}

/**
 * What a lower sensitivity would do to the other anomalies: a ratio is in proportion to it.
 * @param {Effect} effect
 * @param {import("./messages.js").Reference} reference
 * @param {number} sensitivity
 */
export function sensitivityText({ anomalies }, reference, sensitivity) {
  const fine = anomalies.filter((each) => (each.again?.ratio ?? Infinity) * (sensitivity / reference.sensitivity) <= 1).length;
  const others = anomalies.length ? `, and with it ${fine || "none"} of the other anomalies kept here` : "";
  return `With the sensitivity ${sensitivity.toFixed(2)} instead of ${reference.sensitivity.toFixed(2)} it would count as intact${others}. `
    + "Undo then puts back the sensitivity; the image stays.";
}
