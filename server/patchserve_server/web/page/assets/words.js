// Numbers and dates as people read them.

/** @param {number} ratio */
export const ratioText = (ratio) => (Number.isFinite(ratio) ? `${ratio.toFixed(2)} x` : "far above");

/** @param {{isAnomalous: boolean}} verdict */
export const verdictWord = (verdict) => (verdict.isAnomalous ? "Anomalous" : "Intact");

/** @param {{isAnomalous: boolean, ratio: number}} verdict */
export const verdictText = (verdict) => `${verdictWord(verdict)}: ${ratioText(verdict.ratio)} the threshold`;

/** @param {number} count @param {string} noun */
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** @param {number} ms */
export const millisecondsText = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);

/** @param {number} bytes */
export function bytesText(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  const value = bytes / 1024 ** power;
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** What a reference costs. @param {import("./messages.js").Cost} cost */
export const costText = ({ patchesPerImage, memoryBytes, msPerImage }) =>
  `Inspecting an image takes about ${millisecondsText(msPerImage)} (${patchesPerImage.toLocaleString("en")} patches), `
  + `the reference ${bytesText(memoryBytes)} of memory.`;

/** A share as a percentage. @param {number} share */
export const percentText = (share) => `${Number((100 * share).toPrecision(2))} %`;

/** @param {Date} date */
export const dateText = (date) => date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

const REFERENCE_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * What is wrong with the name of a reference; "": nothing.
 * @param {string} id
 */
export function referenceIdProblem(id) {
  if (!id) return "Give the reference a name.";
  if (id.length > 64) return "A name has at most 64 characters.";
  if (!/^[A-Za-z0-9]/.test(id)) return "A name begins with a letter A–Z or a digit.";
  return REFERENCE_ID.test(id) ? "" : "A name has only the letters A–Z, digits, and . _ - (no spaces).";
}
