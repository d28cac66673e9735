// The verdict on one image: words, colour, and the score against the threshold.

import { element, svg } from "./elements.js";
import { ratioText, verdictText, verdictWord } from "./words.js";

/**
 * The verdict as a heading with the scale below it.
 * @param {import("./messages.js").Inspection} inspection
 */
export function verdictView(inspection) {
  const kind = inspection.isAnomalous ? "bad" : "good";
  const meaning = inspection.isAnomalous
    ? "This image differs from the reference more than the threshold allows."
    : "Nothing in this image differs from the reference more than the threshold allows.";
  return element(
    "div",
    { class: `verdict ${kind}` },
    element("h2", { class: "verdict-words" }, sign(inspection.isAnomalous), verdictText(inspection)),
    element("p", {}, meaning),
    gauge(inspection.ratio),
  );
}

/** The short form for lists. */
export function verdictBadge(/** @type {{isAnomalous: boolean, ratio: number}} */ verdict) {
  const kind = verdict.isAnomalous ? "bad" : "good";
  return element("span", { class: `badge ${kind}` }, sign(verdict.isAnomalous), `${verdictWord(verdict)} ${ratioText(verdict.ratio)}`);
}

/** A sign that differs in shape, not only in colour. */
export function sign(isAnomalous) {
  const shape = isAnomalous
    ? [svg("path", { d: "M12 2 23 21H1Z" }), svg("path", { class: "cut", d: "M12 9v5m0 3v.5" })]
    : [svg("circle", { cx: 12, cy: 12, r: 10.5 }), svg("path", { class: "cut", d: "m7 12.5 3.5 3.5L17 9" })];
  return svg("svg", { class: "sign", viewBox: "0 0 24 24", "aria-hidden": "true" }, ...shape);
}

/** The score on a line, with the threshold at 1 x. The line grows for a score above 2 x. */
function gauge(ratio) {
  const end = Number.isFinite(ratio) ? Math.max(2, ratio * 1.1) : 2;
  const share = (value) => `${(100 * Math.min(value, end)) / end}%`;
  const line = element("div", { class: "gauge-line" },
    element("span", { class: "gauge-good" }), element("span", { class: "gauge-bad" }),
    element("span", { class: "gauge-tick" }), element("span", { class: "gauge-mark" }));
  const label = element("span", { class: "gauge-label" }, "1 x: the threshold");
  const shown = element("div", { class: "gauge", role: "img", "aria-label": `A scale from 0 x to ${end.toFixed(1)} x. The score is ${ratioText(ratio)}; the threshold is 1 x.` },
    line, element("div", { class: "gauge-labels" }, element("span", {}, "0 x"), label));
  shown.style.setProperty("--threshold", share(1));
  shown.style.setProperty("--score", share(ratio));
  return shown;
}
