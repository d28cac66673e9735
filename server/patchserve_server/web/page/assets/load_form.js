// Builds or extends a reference from images: chooses them, sends them, shows the progress.

import { ApiError } from "./api.js";
import { activeLoads, load } from "./contract.js";
import { ask } from "./dialogs.js";
import { button, element, notice, replace } from "./elements.js";
import { imageInput } from "./image_input.js";
import { loadOptions } from "./load_options.js";
import { fitting } from "./shrink.js";
import { rateNote } from "./rate_note.js";
import { thumbnails } from "./thumbnails.js";
import { costText, counted, referenceIdProblem } from "./words.js";

const POLL_MS = 400;
const STAGES = {
  RECEIVE: "Receiving the images",
  QUANTIZE: "Preparing the network for these images",
  EMBED: "Computing patches",
  CORESET: "Choosing the patches to keep",
  CALIBRATE: "Finding the threshold",
  SAVE: "Saving",
};

/**
 * The form.
 * @param {object} options
 * @param {import("./app.js").App} options.app
 * @param {import("./messages.js").Reference} [options.reference] that gets the images; left out: the form asks for a name
 * @param {string[]} [options.taken] names that exist already
 * @param {boolean} [options.append] adds the images to the reference, instead of replacing its own
 * @param {(reference: import("./messages.js").Reference, told: string) => void} options.onDone gets its cost, and what is to be said of it
 * @param {() => void} [options.onCancel] shows a button to leave the form
 * @returns {HTMLElement}
 */
export function loadForm({ app, reference = undefined, taken = [], append = false, onDone, onCancel }) {
  const id = reference?.id ?? "";
  const options = append ? null : loadOptions(reference ?? null); // images that are added keep the options of the others
  /** @type {File[]} */
  let images = [];
  const action = append ? "Add these images" : id ? "Replace all images" : "Build the reference";
  const chosen = element("div", { class: "stack tight" });
  const messages = element("div", { class: "stack tight" });
  const submit = element("button", { class: "main" }, action);
  const name = nameField(id === "");
  const zone = imageInput({
    id: "reference-images",
    title: "Drop or choose images of undamaged items",
    action: "Choose images",
    onImages: (files) => {
      images = [...images, ...files];
      replace(messages);
      draw();
    },
    onProblem: (text) => replace(messages, notice("info", text)),
  });
  const form = element(
    "form",
    { class: "stack", novalidate: true, onsubmit: send },
    id === "" && name.field,
    zone,
    chosen,
    options?.element,
    messages,
    element("div", { class: "row" }, submit, onCancel && button("Cancel", onCancel, { class: "quiet" })),
  );
  draw();
  return form;

  function draw() {
    submit.disabled = images.length === 0;
    replace(
      chosen,
      images.length > 0 && element("div", { class: "row between" },
        element("strong", {}, `${counted(images.length, "image")} chosen`),
        button("Remove all", () => { images = []; draw(); }, { class: "quiet" })),
      images.length > 0 && thumbnails(images, (index) => { images = images.filter((_, each) => each !== index); draw(); }),
      !append && images.length < 8 && element("p", { class: "small quiet-text" },
        images.length === 0 ? "Choose 8 or more if you can." : "It works, but with 8 or more the verdicts are better."),
    );
  }

  async function send(event) {
    event.preventDefault();
    const target = id || name.value();
    if (!target || images.length === 0) return;
    if (taken.includes(target) && !(await mayReplace(target))) return;
    await follow(target);
  }

  async function follow(target) {
    const abort = new AbortController();
    const progress = progressOf(target, () => abort.abort());
    form.inert = true;
    form.after(progress.element);
    try {
      const maxBytes = Number(app.info.limits.max_message_bytes);
      const files = await fitting(images, maxBytes, (done) => progress.tell(`Scaling large images down: ${done} of ${images.length}`));
      progress.tell(`Sending ${counted(files.length, "image")}…`);
      const loaded = await load(target, files, {
        append, expectedRevision: reference?.revision, fields: options?.fields(), signal: abort.signal,
      });
      app.say(`The reference ${loaded.reference.id} has ${counted(loaded.reference.imageCount, "image")}.`);
      onDone(loaded.reference, [loaded.cost && costText(loaded.cost), rateNote(loaded.reference)].filter(Boolean).join(" "));
    } catch (error) {
      replace(messages, error.name === "AbortError" ? notice("info", "Cancelled.") : notice("bad", problemOf(error)));
    } finally {
      progress.stop();
      form.inert = false;
    }
  }

  function problemOf(error) {
    if (!(error instanceof ApiError)) return String(error.message ?? error);
    if (error.isChange) return "Somebody else changed this reference in the meantime. Nothing was done. Look at it again, then repeat.";
    const field = error.details.flatMap((detail) => detail.field_violations ?? [])[0]?.field ?? "";
    const index = /^images\[(\d+)\]$/.exec(field)?.[1];
    return index === undefined ? error.message : `${images[Number(index)]?.name}: ${error.message}`;
  }
}

function mayReplace(id) {
  return ask({
    title: "Replace this reference?",
    text: ["There is already a reference ", element("b", {}, id), ". Its images are replaced by yours."],
    action: "Replace it",
    isDangerous: true,
  });
}

/** The field for the name of a new reference. Its value is "" while it is not valid, and the field says why. */
function nameField(isFocused) {
  const help = "Letters A–Z, digits, and . _ -";
  const hint = element("p", { id: "name-help", class: "small quiet-text" }, help);
  const input = element("input", {
    type: "text", id: "reference-name", "aria-describedby": "name-help", autocomplete: "off", autocapitalize: "off",
    spellcheck: "false", oninput: () => show(input.value ? referenceIdProblem(input.value) : ""), autofocus: isFocused,
  });
  const show = (problem) => {
    hint.textContent = problem || help;
    hint.classList.toggle("problem", problem !== "");
    input.setAttribute("aria-invalid", String(problem !== ""));
  };
  return {
    field: element("div", { class: "stack tight" }, element("label", { for: "reference-name" }, "Name of the reference"), input, hint),
    value: () => {
      const problem = referenceIdProblem(input.value);
      show(problem);
      if (problem) input.focus();
      return problem ? "" : input.value;
    },
  };
}

/** The progress of the load of a reference, as ListLoads tells it. */
function progressOf(id, cancel) {
  const words = element("p", { role: "status" });
  const bar = element("progress", { "aria-label": "Progress of this step" });
  const shown = element("div", { class: "card progress stack tight" }, words, bar, element("div", { class: "row" }, button("Cancel", cancel)));
  const timer = setInterval(async () => {
    const [active] = await activeLoads(id).catch(() => []);
    if (!active) return;
    words.textContent = `${STAGES[active.stage] ?? "Working"}${active.total > 1 ? `: ${active.done} of ${active.total}` : "…"}`;
    if (active.total > 0) {
      bar.max = active.total;
      bar.value = active.done;
    } else bar.removeAttribute("value");
  }, POLL_MS);
  const stop = () => {
    clearInterval(timer);
    shown.remove();
  };
  return { element: shown, stop, tell: (text) => { words.textContent = text; } };
}
