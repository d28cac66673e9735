// One result: the verdict, the image with its heat map and regions, the timing.

import { element, svg } from "./elements.js";
import { verdictView } from "./verdict.js";
import { counted, millisecondsText, ratioText } from "./words.js";

/** What people set once and keep for the next image. */
const view = { heat: 60, hasOutlines: true };

/**
 * @param {{file: Blob, name: string, inspection: import("./messages.js").Inspection}} result
 * @param {string[]} urls gets the object URLs, to be revoked when the view is gone
 * @returns {HTMLElement}
 */
export function resultView({ file, name, inspection }, urls) {
  const urlOf = (blob) => {
    urls.push(URL.createObjectURL(blob));
    return urls[urls.length - 1];
  };
  return element(
    "article",
    { class: "card stack result", "aria-label": `Result of ${name}` },
    element("p", { class: "result-name" }, name),
    verdictView(inspection),
    pictureView(urlOf(file), urlOf(inspection.overlay), name, inspection),
    facts(inspection),
  );
}

function pictureView(imageUrl, overlayUrl, name, inspection) {
  const heat = element("img", { class: "heat", src: overlayUrl, alt: "" });
  const image = element("img", { src: imageUrl, alt: name, onerror: () => image.replaceWith(unknown(name, heat)) });
  const outlines = outlinesOf(inspection);
  const slider = element("input", {
    type: "range", id: "heat", min: 0, max: 100, step: 5, value: view.heat,
    oninput: () => set(Number(slider.value), view.hasOutlines),
  });
  const box = element("input", { type: "checkbox", checked: view.hasOutlines, onchange: () => set(view.heat, box.checked) });
  const figure = element("div", { class: "picture" }, image, heat, outlines);

  function set(percentage, hasOutlines) {
    view.heat = percentage;
    view.hasOutlines = hasOutlines;
    heat.style.opacity = String(percentage / 100);
    slider.setAttribute("aria-valuetext", `${percentage} % heat map`);
    outlines.toggleAttribute("hidden", !hasOutlines);
  }

  set(view.heat, view.hasOutlines);
  const { regions } = inspection;
  return element(
    "div",
    { class: "stack tight" },
    figure,
    element("div", { class: "blend" }, element("label", { for: "heat" }, "Image"), slider, element("span", { "aria-hidden": "true" }, "Heat map")),
    element("div", { class: "row between" },
      element("p", { class: "small quiet-text" }, "Yellow and red: above the threshold. Blue and green: below it."),
      regions.length > 0 && element("label", { class: "check" }, box, `Outline ${counted(regions.length, "region")}`)),
  );
}

/** A browser that cannot show the format still shows the heat map, which lies over the image. */
function unknown(name, heat) {
  heat.classList.add("alone");
  return element("span", { class: "visually-hidden" }, name);
}

function outlinesOf({ regions, widthPx, heightPx }) {
  const shapes = regions.map((region) =>
    svg("polygon", { points: region.polygon.map(({ x, y }) => `${x},${y}`).join(" ") }, svg("title", {}, `${ratioText(region.ratio)} the threshold`)));
  const shadows = shapes.map((shape) => {
    const shadow = shape.cloneNode(false);
    shadow.setAttribute("class", "shadow");
    return shadow;
  });
  return svg("svg", { class: "outlines", viewBox: `0 0 ${widthPx} ${heightPx}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...shadows, ...shapes);
}

function facts(inspection) {
  const { timing } = inspection;
  const steps = [["waiting", timing.queueMs], ["decoding", timing.decodeMs], ["network", timing.embedMs],
    ["search", timing.searchMs], ["drawing", timing.renderMs]];
  return element(
    "dl",
    { class: "facts" },
    ...fact("Time", `${millisecondsText(timing.totalMs)} in the server`,
      steps.map(([what, ms]) => `${what} ${millisecondsText(Number(ms))}`).join(", ")),
    ...fact("Anomalous area", `${inspection.areaPercentage.toFixed(1)} % of the image`),
    ...fact("Reference", inspection.referenceId, `revision ${inspection.revision.slice(0, 12)}`),
    ...fact("Damage percentage", `${inspection.damagePercentage.toFixed(1)} %`,
      "The notebook's measure. Use the verdict above to decide."),
  );
}

/** A pair of a list of facts. */
export function fact(name, value, more = "") {
  return [element("dt", {}, name), element("dd", {}, value, more && element("span", { class: "small quiet-text more" }, more))];
}
