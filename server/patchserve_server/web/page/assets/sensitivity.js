// The normal scores of a reference with its threshold, and the slider that moves it.

import { button, element, replace, svg } from "./elements.js";
import { counted } from "./words.js";

const BINS = 32;
const ROUNDING = 1e-6; // of a bar: scores come as 32-bit numbers
const LIMIT = 10; // the contract allows 1/10 to 10
const STEPS = 100;

/** The slider's steps to a sensitivity and back: equal steps multiply it equally. */
const sensitivityAt = (step) => Number((LIMIT ** (step / STEPS)).toFixed(2));
const stepAt = (sensitivity) => Math.round(STEPS * Math.log(sensitivity) / Math.log(LIMIT));

/**
 * @param {object} options
 * @param {import("./messages.js").Reference} options.reference
 * @param {number[]} options.recent raw scores of recent inspections of this bank, the newest last
 * @param {boolean} options.mayTune
 * @param {(sensitivity: number) => void} options.onApply
 */
export function sensitivityView({ reference, recent, mayTune, onApply }) {
  const normal = reference.normalScores.map((raw) => raw / reference.calibratedThreshold);
  const seen = recent.map((raw) => raw / reference.calibratedThreshold);
  const end = Math.max(2, 1.08 * Math.max(0, ...normal, ...seen));
  const chart = histogram(normal, seen, end);
  const words = element("ul", { class: "consequences" });
  const value = element("output", { for: "sensitivity" });
  const slider = element("input", {
    type: "range", id: "sensitivity", min: -STEPS, max: STEPS, step: 1, value: stepAt(reference.sensitivity), disabled: !mayTune,
    oninput: () => set(sensitivityAt(Number(slider.value))),
  });
  let chosen = reference.sensitivity;
  const apply = button("Apply", () => onApply(chosen), { class: "main" });
  const reset = button("Reset", () => {
    slider.value = String(stepAt(reference.sensitivity));
    set(reference.sensitivity);
  }, { class: "quiet" });

  function set(sensitivity) {
    chosen = stepAt(sensitivity) === stepAt(reference.sensitivity) ? reference.sensitivity : sensitivity;
    const isSame = chosen === reference.sensitivity;
    apply.disabled = isSame || !mayTune;
    reset.hidden = isSame;
    value.textContent = String(Number(chosen.toPrecision(3)));
    slider.setAttribute("aria-valuetext", value.textContent);
    chart.setThreshold(1 / chosen);
    replace(words, ...consequences(normal, seen, 1 / chosen, 1 / reference.sensitivity).map((text) => element("li", {}, text)));
  }

  set(reference.sensitivity);
  return element(
    "div",
    { class: "stack" },
    chart.element,
    element("div", { class: "stack tight" },
      element("div", { class: "row between" }, element("label", { for: "sensitivity" }, "Sensitivity"), value),
      slider,
      element("div", { class: "row between small quiet-text", "aria-hidden": "true" },
        element("span", {}, "fewer false alarms"), element("span", {}, "finds smaller differences"))),
    element("div", { role: "status" }, words),
    mayTune
      ? element("div", { class: "row" }, apply, reset)
      : element("p", { class: "small quiet-text" }, "Your token does not allow changes: it lacks the scope “manage”."),
  );
}

/** What the threshold does to the scores, now and before. */
function consequences(normal, seen, threshold, before) {
  const above = (ratios, limit) => ratios.filter((ratio) => ratio > limit).length;
  const line = (ratios, noun) => {
    const count = above(ratios, threshold);
    const old = above(ratios, before);
    const is = threshold !== before ? "would be" : count === 1 || ratios.length === 1 ? "is" : "are";
    return `${count} of ${counted(ratios.length, noun)} ${is} anomalous${count === old ? "." : ` (now ${old}).`}`;
  };
  return [
    normal.length ? line(normal, "normal score") : "The normal scores are not known: an older server built this reference.",
    seen.length ? line(seen, "recent image") : "No image was inspected with this reference recently.",
  ];
}

/** Bars for normal scores, dots for recent ones, and a line for the threshold; 0 to `end` x. */
function histogram(normal, seen, end) {
  const counts = Array(BINS).fill(0);
  // A bar ends with its upper limit: a score of just the threshold is intact, so it stands to the left of it.
  for (const ratio of normal) counts[Math.max(0, Math.min(BINS, Math.ceil((BINS * ratio) / end - ROUNDING)) - 1)] += 1;
  const highest = Math.max(1, ...counts);
  const bars = counts.map((count, bin) =>
    svg("rect", { class: "bar", x: bin + 0.06, width: 0.88, y: 1 - count / highest, height: count / highest }));
  const dots = seen.map((ratio) => {
    const dot = element("span", { class: "dot" });
    dot.style.left = `${(100 * Math.min(ratio, end)) / end}%`;
    return { ratio, dot };
  });
  const label = element("span", { class: "threshold-label" }, "threshold");
  const line = element("div", { class: "threshold-line" }, label);
  const plot = element("div", { class: "plot" },
    svg("svg", { viewBox: `0 0 ${BINS} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...bars),
    seen.length > 0 && element("div", { class: "rug" }, ...dots.map(({ dot }) => dot)), line);
  const ticks = Array.from({ length: Math.floor(end / tickOf(end)) + 1 }, (_, index) => index * tickOf(end));
  const axis = element("div", { class: "axis" }, ...ticks.map((tick) => {
    const mark = element("span", {}, `${tick} x`);
    mark.style.left = `${(100 * tick) / end}%`;
    return mark;
  }));
  const figure = element("figure", { class: "histogram" },
    element("div", { role: "img", class: "chart" }, plot, axis),
    element("figcaption", { class: "small quiet-text legend" },
      element("span", {}, element("i", { class: "key bar-key" }), "normal scores: how much the undamaged items differ from each other"),
      seen.length > 0 && element("span", {}, element("i", { class: "key dot-key" }), element("i", { class: "key dot-key bad" }), "recent images: intact, anomalous")));

  function setThreshold(threshold) {
    const share = Math.min(threshold, end) / end;
    line.style.left = `${100 * share}%`;
    line.classList.toggle("at-right", share > 0.75);
    label.textContent = threshold > end ? "threshold →" : "threshold";
    for (const { ratio, dot } of dots) dot.classList.toggle("bad", ratio > threshold);
    figure.firstElementChild?.setAttribute("aria-label",
      `Histogram of ${counted(normal.length, "normal score")} on a scale from 0 to ${end.toFixed(1)} x. The threshold is at ${threshold.toFixed(2)} x.`);
  }
  return { element: figure, setThreshold };
}

const tickOf = (end) => (end <= 3 ? 0.5 : end <= 6 ? 1 : Math.ceil(end / 6));
