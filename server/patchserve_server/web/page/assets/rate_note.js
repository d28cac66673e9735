// What a reference's images tell of the rate of false alarms that was requested for it.

import { counted, percentText } from "./words.js";

const FAR = 10; // how many times below the smallest rate that the images show

/**
 * A note if they tell less than it seems; "": they tell enough, or no rate was requested.
 * @param {import("./messages.js").Reference} reference
 */
export function rateNote({ requestedRate, imageCount, calibrationMethod, calibratedThreshold, normalScores, normalCount }) {
  if (requestedRate === null) return "";
  const images = counted(imageCount, "image"), rate = percentText(requestedRate);
  if (calibrationMethod === "AUGMENTED_VIEWS") {
    return `${images} cannot tell how often other items are called anomalous: the ${rate} that ${imageCount === 1 ? "was" : "were"} asked for change nothing.`;
  }
  const smallest = 1 / (normalCount + 1); // the chance that the next score is the highest
  if (requestedRate >= smallest) return "";
  const shown = `${images} alone show no rate below ${percentText(smallest)}.`;
  if (requestedRate * FAR >= smallest) {
    return `${shown} ${rate} is extrapolated: it is right if scores of undamaged items are distributed as extreme values usually are. More images make it surer.`;
  }
  const highest = normalScores.at(-1) ?? 0;
  const times = highest > 0 ? `: ${(calibratedThreshold / highest).toFixed(1)} times their highest score` : "";
  return `${shown} ${rate} is far beyond that, so the threshold is a guess${times}. Much damage may be missed. Ask for a higher rate, or load more images.`;
}
