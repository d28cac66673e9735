// How a new reference is built: its profile, the size in which the network sees images, the false alarms it may have.

import { element, setText } from "./elements.js";
import { inputSizes } from "./input_sizes.js";
import { keptOptions } from "./kept_options.js";
import { PROFILES, sizeCost } from "./profiles.js";

/** @type {[string, string][]} */
const VIEWS = [
  ["", "As the profile has it"], ["REFERENCE_VIEWS_NONE", "None"], ["REFERENCE_VIEWS_AUTO", "With few images, where it helps"],
  ["REFERENCE_VIEWS_ALL", "All"],
];
const USUAL_RATE = 0.15; // that of a load without a rate
const RATES = [0.01, 0.02, 0.05, 0.1, 0.2];

/**
 * What a load requests, as fields of its form.
 * @typedef {Record<string, string>} LoadFields
 */

/**
 * The choices, closed until somebody opens them. Those of a reference that exists already begin with its own.
 * @param {import("./messages.js").Reference | null} current
 * @returns {{element: HTMLElement, fields: () => LoadFields}}
 */
export function loadOptions(current) {
  const summary = element("summary", {});
  const profile = choice("profile", "Profile", PROFILES.map(({ value, name }) => [value, name]), current?.profile ?? "VERDICT");
  const { sizes, own } = inputSizes(current);
  const size = choice("size", "How large the network sees images", sizes.map(({ value, words }) => [value, words]), own.value);
  const isKept = element("input", { type: "checkbox", id: "keep", checked: current?.input.aspect === "KEEP", onchange: tell });
  const views = choice("views", "Mirrored and turned copies", VIEWS, current ? `REFERENCE_VIEWS_${current.views}` : "");
  const rate = choice("rate", "False alarms that you accept", rates(current), String(current?.requestedRate ?? ""));
  const others = current ? keptOptions(current) : { words: "", fields: {} };
  const keepsOthers = element("input", { type: "checkbox", id: "others", checked: true });
  size.select.addEventListener("change", () => {
    if (chosenSize().sidePx === null) isKept.checked = true; // a square of a large image only adds pixels
  });
  for (const { select } of [profile, size, views, rate]) select.addEventListener("change", tell);
  tell();
  return {
    element: element("details", { class: "inset load-options" }, summary,
      element("div", { class: "stack" }, profile.field, size.field,
        element("div", { class: "stack tight" },
          element("label", { class: "check" }, isKept, "Keep the proportions of the first image"),
          element("p", { class: "small quiet-text" }, "For images that always have the same format. Otherwise each becomes a square.")),
        views.field, rate.field,
        others.words && element("label", { class: "check" }, keepsOthers, `Keep its other options: ${others.words}`))),
    fields,
  };

  function chosenSize() {
    return sizes.find(({ value }) => value === size.select.value) ?? own;
  }

  function tell() {
    const { name, text, sidePx } = PROFILES.find(({ value }) => value === profile.select.value) ?? PROFILES[0];
    profile.hint(text);
    const chosen = chosenSize();
    size.hint(sizeCost(chosen.sidePx === 0 ? sidePx : chosen.sidePx));
    views.hint("For few images, of items that may lie in any direction. All copies take up to 8 times the memory.");
    rate.hint("The threshold is computed for this share of undamaged items, from three or more different images. "
      + "Fewer false alarms miss more damage.");
    setText(summary, `Profile and size: ${name}, ${chosen.value ? chosen.words : `${sidePx} px`}`);
  }

  function fields() {
    return Object.fromEntries(Object.entries({
      profile: `SCORING_PROFILE_${profile.select.value}`,
      ...chosenSize().fields,
      "input.aspect": isKept.checked ? "ASPECT_RATIO_KEEP" : "",
      views: views.select.value,
      false_alarm_rate: rate.select.value,
      ...(keepsOthers.checked ? others.fields : {}),
    }).filter(([, value]) => value !== ""));
  }
}

/** @returns {[string, string][]} */
function rates(current) {
  const own = current?.requestedRate ?? 0;
  const shares = [...new Set([...RATES, own])].filter((share) => share > 0).sort((one, other) => one - other);
  return [["", `As usual: ${100 * USUAL_RATE} %`], ...shares.map((share) => pair(String(share), `${Number((100 * share).toFixed(1))} %`))];
}

/** @param {string} value @param {string} words @returns {[string, string]} */
const pair = (value, words) => [value, words];

/** A list to choose from, with a line that says what the choice means. */
function choice(name, label, values, chosen) {
  const id = `load-${name}`;
  const help = element("p", { id: `${id}-help`, class: "small quiet-text" });
  const select = element("select", { id, "aria-describedby": help.id },
    ...values.map(([value, words]) => element("option", { value, selected: value === chosen }, words)));
  return {
    select,
    hint: (text) => setText(help, text),
    field: element("div", { class: "stack tight" }, element("label", { for: id }, label), select, help),
  };
}
