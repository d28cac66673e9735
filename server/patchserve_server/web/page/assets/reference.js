// The screen Reference: its images, its threshold, and what can be done with it.

import { ApiError } from "./api.js";
import { getReference, listReferences, recentScores, remove, restore, tune } from "./contract.js";
import { ask } from "./dialogs.js";
import { button, element, notice, replace } from "./elements.js";
import { imageGrid } from "./image_grid.js";
import { loadForm } from "./load_form.js";
import { inputText, profileName } from "./profiles.js";
import { rateNote } from "./rate_note.js";
import { fact } from "./result_view.js";
import { sensitivityView } from "./sensitivity.js";
import { bytesText, counted, dateText, percentText } from "./words.js";

/** @param {HTMLElement} root @param {import("./app.js").App} app */
export function show(root, app) {
  const screen = new ReferenceScreen(root, app);
  void screen.open();
  return () => screen.leave();
}

class ReferenceScreen {
  /** @type {import("./messages.js").Reference} */
  #reference;
  #ids = [];
  #isLeft = false;
  #stopGrid = () => {};

  constructor(root, app) {
    this.app = app;
    this.root = root;
    this.messages = element("div", { class: "stack" });
    this.actions = element("div", { class: "stack" });
    this.body = element("div", { class: "stack" });
    this.mayManage = app.can("manage");
  }

  async open() {
    replace(this.root, element("p", { class: "quiet-text" }, "Loading…"));
    try {
      this.#ids = (await listReferences()).map((reference) => reference.id);
      if (this.#isLeft) return;
      const asked = this.app.path[0] ?? "";
      const id = this.#ids.includes(asked) ? asked : this.#ids[0];
      if (id === undefined) return this.#drawNone();
      if (asked && id !== asked) replace(this.messages, notice("info", `There is no reference “${asked}”.`));
      this.#drawScreen(id);
      await this.#refresh(id);
    } catch (error) {
      if (!this.#isLeft) replace(this.root, notice("bad", error.message));
    }
  }

  leave() {
    this.#isLeft = true;
    this.#stopGrid();
  }

  #drawNone() {
    replace(this.root, element("div", { class: "narrow stack" }, element("h1", {}, "Reference"),
      element("p", {}, "There is no reference yet. A reference is a set of images of undamaged items."),
      element("p", {}, element("a", { href: "#/try", class: "as-button" }, "Build one"))));
  }

  #drawScreen(id) {
    const choice = element(
      "select",
      { id: "reference", onchange: () => this.app.go(`#/reference/${choice.value}`) },
      ...this.#ids.map((each) => element("option", { value: each, selected: each === id }, each)),
    );
    replace(
      this.root,
      element("div", { class: "title-row" }, element("h1", {}, "Reference"),
        element("div", { class: "grow" }, element("label", { for: "reference", class: "visually-hidden" }, "Reference"), choice)),
      this.messages,
      this.body,
    );
  }

  /** Reads the reference again and draws it. */
  async #refresh(id) {
    const { reference, images } = await getReference(id);
    const recent = this.mayManage ? await recentScores(id) : [];
    if (this.#isLeft) return;
    this.#stopGrid();
    this.#reference = reference;
    const grid = imageGrid(reference, images, this.mayManage);
    this.#stopGrid = grid.stop;
    const sensitivity = sensitivityView({
      reference, recent, mayTune: this.mayManage, onApply: (value) => this.#tune(value),
    });
    replace(
      this.body,
      element("div", { class: "columns" },
        element("div", { class: "stack" },
          element("section", { class: "card stack", "aria-labelledby": "threshold-title" },
            element("h2", { id: "threshold-title" }, "Threshold"), sensitivity),
          element("section", { class: "card stack", "aria-labelledby": "facts-title" },
            element("h2", { id: "facts-title" }, "Details"), facts(reference))),
        element("section", { class: "card stack", "aria-labelledby": "images-title" },
          element("h2", { id: "images-title" }, counted(reference.imageCount, "image")), this.actions, grid.element)),
    );
    this.#drawActions();
  }

  #drawActions() {
    const reason = this.mayManage ? {} : { disabled: true, title: "Your token lacks the scope “manage”." };
    replace(
      this.actions,
      element("div", { class: "row" },
        button("Add images", () => this.#drawForm(true), reason),
        button("Replace all", () => this.#replaceAll(), reason),
        this.#reference.previousRevision && button("Undo the last change", () => this.#restore(), reason),
        button("Delete", () => this.#remove(), { ...reason, class: "danger" })),
      !this.mayManage && element("p", { class: "small quiet-text" }, "Your token shows the names of the images, and does not allow changes: it lacks the scope “manage”."),
    );
  }

  #drawForm(append) {
    const form = loadForm({
      app: this.app,
      reference: this.#reference,
      append,
      onDone: (reference, told) => this.#done(append ? `Added. The reference now has ${counted(reference.imageCount, "image")}. ${told}` : `The images are replaced. ${told}`),
      onCancel: () => this.#drawActions(),
    });
    replace(this.actions, element("div", { class: "inset stack" }, element("h3", {}, append ? "Add images of undamaged items" : "Replace all images"), form));
    form.querySelector("input")?.focus();
  }

  async #replaceAll() {
    const isSure = await ask({
      title: "Replace all images?",
      text: ["The ", counted(this.#reference.imageCount, "image"), " of ", element("b", {}, this.#reference.id),
        " are replaced by those that you choose next. Until they are ready, the old ones stay in use."],
      action: "Choose new images",
    });
    if (isSure) this.#drawForm(false);
  }

  async #tune(sensitivity) {
    const isDone = await this.#change(() => tune(this.#reference.id, sensitivity, this.#reference.revision));
    if (isDone) await this.#done(`The sensitivity is now ${sensitivity}.`);
  }

  async #restore() {
    const { id, previousRevision, revision } = this.#reference;
    const isSure = await ask({
      title: "Undo the last change?",
      text: [element("b", {}, id), " becomes what it was before: revision ", element("code", {}, previousRevision.slice(0, 12)),
        ". You can undo this too."],
      action: "Undo the change",
    });
    if (isSure && (await this.#change(() => restore(id, previousRevision, revision)))) await this.#done("The last change is undone.");
  }

  async #remove() {
    const { id, imageCount, revision } = this.#reference;
    const isSure = await ask({
      title: "Delete this reference?",
      text: [element("b", {}, id), ` with its ${counted(imageCount, "image")} is deleted for all users. This cannot be undone.`],
      action: "Delete it",
      isDangerous: true,
      typed: id,
    });
    if (!isSure || !(await this.#change(() => remove(id, revision)))) return;
    this.app.say(`${id} is deleted.`);
    this.app.go("#/reference");
  }

  /** Makes a change; says what is wrong if it fails. */
  async #change(work) {
    try {
      await work();
      return true;
    } catch (error) {
      const isChange = error instanceof ApiError && error.isChange;
      const text = isChange ? "Somebody else changed this reference in the meantime, so nothing was done. Look at it again, then decide." : error.message;
      replace(this.messages, notice("bad", text, isChange && " ", isChange && button("Show it as it is now", () => this.#again())));
      return false;
    }
  }

  async #again() {
    replace(this.messages);
    await this.#refresh(this.#reference.id);
  }

  async #done(text) {
    replace(this.messages, notice("good", text));
    await this.#refresh(this.#reference.id);
  }
}

const VIEWS = {
  NONE: "the images as they are",
  AUTO: "with few images, also mirrored and turned ones, unless that spreads their scores",
  ALL: "the images, and mirrored and turned ones",
};

/** Which copies of the images the bank has. AUTO says what was allowed, the number of views what came of it. */
function viewsText({ views, scales, viewsPerImage }) {
  if (viewsPerImage === null) return VIEWS[views] ?? views;
  if (viewsPerImage === 1) return views === "AUTO" ? "the images as they are: copies were not taken" : VIEWS.NONE;
  const copies = [viewsPerImage > scales && "mirrored and turned ones", scales > 1 && "smaller or larger ones"].filter(Boolean);
  return `the images, and ${copies.join(", ")}: ${viewsPerImage} views of each`;
}

const METHODS = {
  LEAVE_ONE_OUT: "each image compared with all others",
  AUGMENTED_VIEWS: "altered views of the images, because there are few",
};

function falseAlarms(reference) {
  const { falseAlarms: expected } = reference, note = rateNote(reference);
  if (!expected) return note ? fact("False alarms", "not known", note) : [];
  const { rate, upper } = expected;
  return fact("False alarms", `expected: ${percentText(rate)} of undamaged items`,
    note || `At most ${percentText(upper)}, with a confidence of 95 %: more images make it surer.`);
}

/** What the bank keeps: patches, or with the profile SUBSPACE the vectors of the subspace. */
function sizeText({ patchCount, profile }) {
  if (profile === "SUBSPACE") return counted(patchCount, "vector");
  return counted(patchCount, "patch").replace(/patchs$/, "patches");
}

const DRIFTS = {
  NONE: ["like those of the reference", ""],
  MORE_DAMAGE: ["more damage", "More of them than false alarms explain score above all normal scores."],
  SCENE_CHANGED: ["another scene", "Most of them differ from the reference: the light, the camera or the product has changed."],
};

function recentImages({ drift }) {
  if (!drift) return []; // not in the answer to a change
  const [text, note] = DRIFTS[drift.state] ?? ["not known", "Too few images were inspected, or the reference has too few."];
  return fact("Recent images", text, note || `The last ${counted(drift.imageCount, "image")}.`);
}

function facts(reference) {
  return element(
    "dl",
    { class: "facts" },
    ...fact("Calibration", METHODS[reference.calibrationMethod] ?? "", `1 x is a raw score of ${reference.threshold.toPrecision(4)}`),
    ...falseAlarms(reference),
    ...recentImages(reference),
    ...fact("Size", `${sizeText(reference)}, ${bytesText(reference.bankBytes)} without the search index`),
    ...fact("Network", `${reference.backbone}, ${reference.precision}`),
    ...fact("Profile", profileName(reference.profile)),
    ...fact("Input", inputText(reference), "What the network sees of an image."),
    ...fact("Views", viewsText(reference)),
    ...fact("Created", dateText(reference.created)),
    ...fact("Changed", dateText(reference.updated)),
    ...fact("Revision", element("code", {}, reference.revision.slice(0, 12)), ""),
  );
}
