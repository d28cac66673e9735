// The profiles, and what a larger input costs, in plain words.

export const PROFILES = [
  { value: "VERDICT", name: "Best verdict", sidePx: 320, text: "The best verdicts that we know. Choose this unless you know why not." },
  { value: "NOTEBOOK", name: "Exactly the notebook", sidePx: 224, text: "The numbers of the documented PatchCore service. The fastest." },
  { value: "PAPER", name: "The paper", sidePx: 224, text: "PatchCore as it was published, with smooth maps." },
  { value: "SUBSPACE", name: "Subspace", sidePx: 320, text: "For items that are all alike: small and fast. On items that differ, verdicts are worse." },
];

/** @param {string} value such as "VERDICT" */
export const profileName = (value) => PROFILES.find((profile) => profile.value === value)?.name ?? value;

const SMALLEST_PX = 224;

/** What a size costs. @param {number | null} sidePx null: tiles */
export function sizeCost(sidePx) {
  if (sidePx === null) {
    return "For damage of a few pixels in large images. The most expensive: an image of 12 megapixels takes about 400 times as long as at 224 px.";
  }
  const times = (sidePx / SMALLEST_PX) ** 2;
  if (times <= 1) return "The fastest. Damage of a few pixels in a large image is missed.";
  return `Takes about ${Math.round(times)} times the time and memory of 224 px. Smaller damage is found`
    + (sidePx > 320 ? "; on some items, verdicts are worse than at 320 px: try both." : ".");
}

/**
 * How large the network sees images.
 * @param {import("./messages.js").Reference} reference
 */
export function inputText({ inputWidthPx, inputHeightPx, input }) {
  return `${inputWidthPx} x ${inputHeightPx} px${input.tilePx ? `, in tiles of ${input.tilePx} px` : ""}`;
}
