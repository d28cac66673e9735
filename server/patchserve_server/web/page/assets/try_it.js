// The screen Try it: choose or build a reference, give images, see the verdicts.

import { cameraView } from "./camera.js";
import { listReferences } from "./contract.js";
import { button, element, notice, replace } from "./elements.js";
import { imageInput, photoButton } from "./image_input.js";
import { Inspections } from "./inspections.js";
import { loadForm } from "./load_form.js";
import { resultView } from "./result_view.js";
import { grpcAddress, snippetView } from "./snippets.js";
import { fileImage } from "./thumbnails.js";
import { verdictBadge } from "./verdict.js";
import { counted, verdictText } from "./words.js";

const inspections = new Inspections();

/** What the next screen says once of the reference that was just built, such as its cost. */
let news = "";

/** @param {HTMLElement} root @param {import("./app.js").App} app */
export function show(root, app) {
  const screen = new TryIt(root, app);
  void screen.open();
  return () => screen.leave();
}

class TryIt {
  /** @type {import("./messages.js").Reference[]} */
  #references = [];
  /** @type {import("./inspections.js").Item | null} the one that is shown large */
  #selected = null;
  /** @type {ReturnType<typeof cameraView> | null} */
  #camera = null;
  #id = "";
  /** @type {string[]} object URLs of the shown result */
  #urls = [];
  #isLeft = false;
  /** @type {import("./inspections.js").Item | null} the one whose verdict comes into view when it is there */
  #awaited = null;
  /** @type {boolean | null} what screen readers were told last */
  #saidAnomalous = null;

  constructor(root, app) {
    this.app = app;
    this.root = root;
    this.setup = element("div", { class: "stack" });
    this.problem = element("div", {});
    this.cameraPlace = element("div", { class: "camera-place" });
    this.list = element("div", { class: "list" });
    this.result = element("div", { class: "stack result-column" });
  }

  async open() {
    replace(this.root, element("p", { class: "quiet-text" }, "Loading…"));
    try {
      this.#references = await listReferences();
    } catch (error) {
      if (!this.#isLeft) replace(this.root, notice("bad", error.message));
      return;
    }
    if (this.#isLeft) return;
    const asked = this.app.path[0] ?? "";
    if (this.#references.length === 0) this.#welcome();
    else if (asked && !this.#find(asked)) this.#drawScreen(this.#references[0].id, `There is no reference “${asked}”.`);
    else this.#drawScreen(asked || this.#references[0].id);
  }

  leave() {
    this.#isLeft = true;
    inspections.onChange = () => {};
    this.#camera?.close();
    this.#releaseUrls();
  }

  #find(id) {
    return this.#references.find((reference) => reference.id === id);
  }

  /** Nothing is loaded yet. */
  #welcome() {
    const mayBuild = this.app.can("manage");
    replace(
      this.root,
      element(
        "div",
        { class: "narrow stack" },
        element("h1", {}, "Find what is different"),
        element("p", {}, "First, give the server a few images of undamaged items: your reference. Then give it other images. ",
          "For each one it says whether the item is different, how much, and where."),
        mayBuild
          ? element("section", { class: "card stack" }, element("h2", {}, "Build your first reference"),
            loadForm({ app: this.app, onDone: (reference, told) => this.#built(reference, told) }))
          : notice("info", "There is no reference yet. Your token does not allow you to build one (it lacks the scope “manage”). Ask the person who runs this server."),
      ),
    );
  }

  #built(reference, told) {
    news = told;
    this.app.go(`#/try/${reference.id}`);
  }

  #drawScreen(id, problem = "") {
    this.#id = id;
    const said = problem || news;
    news = "";
    inspections.onChange = (item) => this.#changed(item);
    replace(
      this.root,
      element("h1", {}, "Try it"),
      said && notice("info", said),
      element("div", { class: "columns try" }, this.setup, this.result, this.list),
    );
    this.#drawSetup();
    this.#select(inspections.of(id)[0] ?? null);
  }

  #drawSetup() {
    const reference = /** @type {import("./messages.js").Reference} */ (this.#find(this.#id));
    const choice = element(
      "select",
      { id: "reference", onchange: () => this.app.go(`#/try/${choice.value}`) },
      ...this.#references.map((each) => element("option", { value: each.id, selected: each.id === this.#id }, `${each.id} (${counted(each.imageCount, "image")})`)),
    );
    replace(
      this.setup,
      element("section", { class: "card stack tight", "aria-label": "Reference" },
        element("label", { for: "reference" }, "Compare with the reference"),
        choice,
        element("div", { class: "row between" },
          element("a", { href: `#/reference/${reference.id}`, class: "touch-link" }, "Show its images and threshold"),
          this.#newButton())),
      element("section", { class: "card stack tight", "aria-label": "Images" }, this.#imageInput(), this.problem),
      this.cameraPlace,
    );
  }

  #newButton() {
    if (!this.app.can("manage")) {
      return button("New reference", () => {}, { disabled: true, title: "Your token lacks the scope “manage”." });
    }
    return button("New reference", () => this.#drawNew());
  }

  #drawNew() {
    const form = loadForm({
      app: this.app,
      taken: this.#references.map((reference) => reference.id),
      onDone: (reference, told) => this.#built(reference, told),
      onCancel: () => this.#drawSetup(),
    });
    replace(this.setup, element("section", { class: "card stack", "aria-label": "New reference" }, element("h2", {}, "New reference"), form));
    form.querySelector("input")?.focus();
  }

  #imageInput() {
    return imageInput({
      id: "images",
      title: "Drop or choose images to inspect",
      action: "Choose images",
      onImages: (files) => this.#give(files),
      onProblem: (text) => replace(this.problem, notice("info", text)),
      more: [
        navigator.maxTouchPoints > 0 && photoButton("photo", "Take a photo", (files) => this.#give(files)),
        button("Use the camera", () => this.#openCamera()),
      ],
    });
  }

  #give(files) {
    replace(this.problem);
    const given = inspections.add(this.#id, files);
    if (given.length < files.length) {
      replace(this.problem, notice("info", `Only the first ${given.length} of ${counted(files.length, "image")} are inspected.`));
    }
    this.#awaited = given[0];
    this.#select(given[0]);
  }

  #openCamera() {
    if (this.#camera) return;
    this.#camera = cameraView({
      onImage: (file) => this.#inspectCamera(file),
      onClose: () => { this.#camera = null; },
    });
    replace(this.cameraPlace, this.#camera.element);
    bringIntoView(this.cameraPlace);
  }

  /** While the camera looks continuously, its last image takes the place of the one before. */
  async #inspectCamera(file) {
    const before = this.#camera?.isLooking() && this.#selected?.isFromCamera ? this.#selected : null;
    const item = await inspections.addNow(this.#id, file);
    item.isFromCamera = true;
    if (before) inspections.items = inspections.items.filter((each) => each !== before);
    if (!this.#isLeft) this.#select(item);
  }

  /** While the camera looks continuously, only a change of the verdict is told. */
  #sayVerdict({ name, inspection }) {
    const isNews = !this.#camera?.isLooking() || inspection.isAnomalous !== this.#saidAnomalous;
    this.#saidAnomalous = inspection.isAnomalous;
    if (isNews) this.app.say(`${name}. ${verdictText(inspection)}.`);
  }

  #changed(item) {
    if (item === this.#selected) this.#drawResult();
    this.#drawList();
  }

  #select(item) {
    this.#selected = item;
    this.#drawResult();
    this.#drawList();
  }

  #releaseUrls() {
    this.#urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
  }

  #drawList() {
    const items = inspections.of(this.#id);
    if (items.length === 0) return replace(this.list);
    const anomalous = items.filter((item) => item.inspection?.isAnomalous).length;
    replace(
      this.list,
      element(
        "section",
        { class: "card stack tight", "aria-label": "Inspected images" },
        element("div", { class: "row between" },
          element("h2", {}, `${counted(items.length, "image")}, ${anomalous} anomalous`),
          element("div", { class: "row" },
            button("Inspect again", () => { inspections.repeat(this.#id); this.#drawList(); }, { class: "quiet" }),
            button("Clear", () => { inspections.clear(this.#id); this.#select(null); }, { class: "quiet" }))),
        element("ul", { class: "items" }, ...items.map((item) => element("li", {}, this.#row(item)))),
      ),
    );
  }

  #row(item) {
    const state = {
      waiting: () => "waiting",
      running: () => "inspecting…",
      done: () => verdictBadge(item.inspection),
      failed: () => element("span", { class: "badge bad" }, "failed"),
    };
    return element(
      "button",
      { type: "button", class: "item", "aria-pressed": String(item === this.#selected), onclick: () => this.#select(item) },
      (item.thumbnail ??= fileImage(item.file, "")),
      element("span", { class: "name" }, item.name),
      element("span", { class: "state" }, state[item.state]()),
    );
  }

  #drawResult() {
    const item = this.#selected;
    this.#releaseUrls();
    if (item === null) {
      return replace(this.result, element("div", { class: "card empty" },
        element("p", { class: "drop-title" }, "The verdict appears here"),
        element("p", { class: "quiet-text" }, "Drop or choose an image, or open the camera.")));
    }
    if (item.state === "failed") {
      replace(this.result, notice("bad", `${item.name}: ${item.problem}`));
      return this.#reveal(item);
    }
    if (item.inspection === null) return replace(this.result, element("p", { class: "card empty quiet-text" }, `Inspecting ${item.name}…`));
    this.#sayVerdict(item);
    replace(
      this.result,
      resultView({ file: item.file, name: item.name, inspection: item.inspection }, this.#urls),
      snippetView({
        url: location.origin,
        grpcAddress: grpcAddress(this.app.info),
        isTls: location.protocol === "https:",
        isTokenNeeded: this.app.session.isTokenNeeded,
        referenceId: this.#id,
        fileName: item.name,
      }),
    );
    this.#reveal(item);
  }

  /** On a phone the result is below the choice of images. Before the verdict is there, the page is too short to scroll to it. */
  #reveal(item) {
    if (item !== this.#awaited) return;
    this.#awaited = null;
    bringIntoView(this.result);
  }
}

/** Scrolls to what is below the other columns on a narrow screen, and beside them on a wide one. */
function bringIntoView(node) {
  if (matchMedia("(max-width: 899px)").matches) node.scrollIntoView();
}
