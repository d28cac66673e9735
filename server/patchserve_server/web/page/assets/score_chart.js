// Scores over time against the threshold, for one reference.

import { element, svg } from "./elements.js";
import { counted, ratioText } from "./words.js";
import { SHOWN_MS } from "./wall_state.js";

const MINUTE_MS = 60_000;
const LEAST_TOP = 2; // of the scale, in x
const HIGHEST_TOP = 6;

/**
 * A chart that is drawn again and again.
 * @param {string} referenceId
 * @param {(() => void) | null} onChoose shows this reference alone; null: it is alone
 */
export function scoreChart(referenceId, onChoose) {
  const intact = svg("path", { class: "wall-intact" });
  const anomalous = svg("path", { class: "wall-anomalous" });
  const changes = svg("path", { class: "wall-change" });
  const threshold = element("span", { class: "wall-threshold" }, element("span", {}, "1 x: the threshold"));
  const top = element("span", { class: "wall-top" });
  const plot = element("div", { class: "wall-plot", role: "img" },
    svg("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" }, changes, intact, anomalous),
    threshold, top);
  const begin = element("span", {});
  const last = element("span", { class: "wall-last" });
  const title = onChoose
    ? element("button", { type: "button", class: "wall-choose", onclick: onChoose, title: "Watch this reference alone" }, referenceId)
    : element("span", {}, referenceId);
  const node = element("section", { class: "card wall-chart", "aria-label": `Scores of ${referenceId}` },
    element("div", { class: "row between" }, element("h3", {}, title), last),
    plot,
    element("div", { class: "row between small quiet-text wall-times" }, begin, element("span", {}, "now")));

  /** @param {import("./wall_state.js").WatchedReference} reference @param {number} now */
  function draw(reference, now) {
    const points = reference.points.filter((point) => point.timeMs > now - SHOWN_MS);
    const highest = Math.max(LEAST_TOP, ...points.map((point) => point.ratio).filter(Number.isFinite));
    const end = Math.min(HIGHEST_TOP, highest * 1.08);
    const minutes = Math.max(1, Math.ceil((now - (points[0]?.timeMs ?? now)) / MINUTE_MS)); // it grows up to SHOWN_MS
    const x = (point) => Math.round(1000 * (1 - (now - point.timeMs) / (minutes * MINUTE_MS)));
    const y = (ratio) => Math.round(1000 * (1 - Math.min(ratio, end) / end));
    const dots = (some) => some.map((point) => `M${x(point)} ${y(point.ratio)}h0`).join("");
    intact.setAttribute("d", dots(points.filter((point) => !point.isAnomalous)));
    anomalous.setAttribute("d", dots(points.filter((point) => point.isAnomalous)));
    const firsts = points.filter((point, index) => index > 0 && point.revision !== points[index - 1].revision);
    changes.setAttribute("d", firsts.map((point) => `M${x(point)} 0v1000`).join(""));
    threshold.style.top = `${y(1) / 10}%`;
    top.textContent = highest > end ? `${end.toFixed(0)} x and more` : `${end.toFixed(1)} x`;
    begin.textContent = `${counted(minutes, "minute")} ago`;
    describe(points);
  }

  function describe(points) {
    const above = points.filter((point) => point.isAnomalous).length;
    const newest = points[points.length - 1];
    last.textContent = newest ? `last ${ratioText(newest.ratio)}` : "nothing in the last 5 minutes";
    last.className = `wall-last ${newest ? (newest.isAnomalous ? "bad" : "good") : "quiet-text"}`;
    const text = newest
      ? `${counted(points.length, "image")} in the last 5 minutes, ${above} of them above the threshold. The last one: ${ratioText(newest.ratio)}.`
      : "No image in the last 5 minutes.";
    plot.setAttribute("aria-label", text);
  }

  return { node, draw };
}
