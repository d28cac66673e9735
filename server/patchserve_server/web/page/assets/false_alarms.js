// "This is fine": a false alarm becomes an image of its reference, in one press, and can be undone.

import { open } from "./api.js";
import { activeLoads, getReference, load, restore, tune } from "./contract.js";
import { button, element, notice, replace, setText } from "./elements.js";
import { effectText, inspectAgain, lowerSensitivity, sensitivityText } from "./wall_effects.js";
import { tileName } from "./wall_tiles.js";
import { counted } from "./words.js";

const PROGRESS_EVERY_MS = 400;
const REPORTS = 4;
const STAGES = {
  RECEIVE: "reading the image", QUANTIZE: "preparing the network", EMBED: "computing its patches",
  CORESET: "choosing patches", CALIBRATE: "calibrating", SAVE: "saving",
};

/**
 * @typedef {object} Change of a reference
 * @property {import("./wall_state.js").Tile} tile the image that it was made for
 * @property {Element} report where it is shown
 * @property {import("./messages.js").Reference} reference as it is now
 * @property {string} before the revision that an undo puts back
 * @property {import("./elements.js").Child[]} title
 */

/** Adds images of the wall to their references, and says what became of it. */
export class FalseAlarms {
  isBusy = false;
  #reports;
  #state;
  #say;
  #onChange;
  /** @type {Map<string, {revision: string, lock: () => void}>} the last addition to each reference */
  #undoable = new Map();

  /**
   * @param {Element} reports where it says what became of it
   * @param {import("./wall_state.js").WallState} state
   * @param {(text: string) => void} say tells people with a screen reader
   * @param {() => void} onChange a tile or `isBusy` has changed
   */
  constructor(reports, state, say, onChange) {
    this.#reports = reports;
    this.#state = state;
    this.#say = say;
    this.#onChange = onChange;
  }

  /** @param {import("./wall_state.js").Tile} tile */
  async add(tile) {
    if (this.isBusy) return;
    const report = this.#newReport();
    await this.#alone(report, () => this.#add(tile, report));
  }

  /** Locks what can no longer be undone, because the reference was changed since. */
  referencesChanged() {
    for (const [id, { revision, lock }] of this.#undoable) {
      if (this.#state.references.get(id)?.revision === revision) continue;
      lock();
      this.#undoable.delete(id);
    }
  }

  async #alone(report, work) {
    this.isBusy = true;
    this.#onChange();
    try {
      await work();
    } catch (error) {
      replace(report, notice("bad", error.message), this.#dismissal(report));
    } finally {
      this.isBusy = false;
      this.#onChange();
    }
  }

  async #add(tile, report) {
    const id = tile.referenceId;
    const finish = showProgress(report, id, `Adding ${tileName(tile)} to ${id}`);
    try {
      const image = await original(tile);
      const before = await this.#currentRevision(id);
      const take = this.#state.awaitAnswer(id);
      const { reference } = await load(id, [image], { append: true, expectedRevision: before });
      take(reference);
      finish();
      const title = [element("strong", {}, `${tileName(tile)} is now an image of ${id}`), `, which has ${counted(reference.imageCount, "image")}.`];
      await this.#changed({ tile, report, reference, before, title });
    } catch (error) {
      if (!error.isChange) throw error;
      await this.#offerAgain(tile, report);
    } finally {
      finish();
    }
  }

  async #currentRevision(id) {
    return this.#state.references.get(id)?.revision || (await getReference(id)).reference.revision;
  }

  /** Somebody else has changed the reference. */
  async #offerAgain(tile, report) {
    const take = this.#state.awaitAnswer(tile.referenceId);
    const { reference } = await getReference(tile.referenceId);
    take(reference);
    replace(report,
      notice("info", `Somebody else has just changed ${reference.id}: it has ${counted(reference.imageCount, "image")} now. Nothing was added. `,
        "Add this image to the reference as it is now?"),
      element("div", { class: "row" },
        button("Add it", () => void this.#alone(report, () => this.#add(tile, report)), { class: "main" }),
        button("Leave it", () => report.remove())));
  }

  /** A change is made: shows it, what it means, and how to undo it. @param {Change} change */
  async #changed(change) {
    const { tile, reference, before } = change;
    const { text, offer } = this.#show(change);
    this.#say(`Done. ${reference.id} has ${counted(reference.imageCount, "image")}.`);
    setText(text, "Inspecting the last images again…");
    void inspectAgain(tile, this.#state, reference, before, this.#onChange).then(
      (effect) => {
        setText(text, effect ? effectText(effect) : "");
        this.#say(text.textContent);
        if (effect) this.#offerSensitivity(change, effect, offer);
      },
      (error) => setText(text, `The last images could not be inspected again: ${error.message}`),
    );
  }

  /** @param {Change} change */
  #show(change) {
    const { tile, report, reference, title } = change;
    const undo = button("Undo", () => void this.#alone(report, () => this.#undo(change)));
    const note = element("span", { class: "small quiet-text" });
    const text = element("p", { class: "wall-effect" });
    const offer = element("div", {});
    replace(report,
      element("p", {}, ...title),
      text,
      offer,
      tile.isFrame && element("p", { class: "small quiet-text" },
        "This image came from a stream. A stream that is open keeps the reference that it began with: its next frames are judged as before, until its program opens it anew."),
      element("div", { class: "row" }, undo, this.#dismissal(report), note));
    const lock = () => {
      undo.disabled = true;
      replace(offer);
      note.textContent = `${reference.id} was changed again, so this can no longer be undone here.`;
    };
    this.#undoable.get(reference.id)?.lock();
    this.#undoable.set(reference.id, { revision: reference.revision, lock });
    return { text, offer };
  }

  /** If the image is still above the threshold, its reference is more sensitive than its images allow. */
  #offerSensitivity(change, effect, offer) {
    const { reference } = change;
    const sensitivity = lowerSensitivity(effect, reference);
    if (!sensitivity) return;
    replace(offer, element("div", { class: "inset row between" },
      element("p", { class: "grow" }, sensitivityText(effect, reference, sensitivity)),
      button(`Set the sensitivity to ${sensitivity.toFixed(2)}`, () => void this.#alone(change.report, () => this.#tune(change, sensitivity)))));
  }

  /** @param {Change} change @param {number} sensitivity */
  async #tune({ tile, report, reference }, sensitivity) {
    const finish = showProgress(report, reference.id, `Setting the sensitivity of ${reference.id}`);
    this.#undoable.delete(reference.id);
    try {
      const take = this.#state.awaitAnswer(reference.id);
      const tuned = await tune(reference.id, sensitivity, reference.revision);
      take(tuned);
      const title = [element("strong", {}, `${tuned.id} has the sensitivity ${sensitivity.toFixed(2)} now`), `, and ${counted(tuned.imageCount, "image")}.`];
      await this.#changed({ tile, report, reference: tuned, before: reference.revision, title });
    } finally {
      finish();
    }
  }

  /** @param {Change} change */
  async #undo(change) {
    const { report, reference, before } = change;
    const finish = showProgress(report, reference.id, `Putting back ${reference.id} as it was`);
    this.#undoable.delete(reference.id);
    try {
      const take = this.#state.awaitAnswer(reference.id);
      const restored = await restore(reference.id, before, reference.revision);
      take(restored);
      const text = `Undone: ${restored.id} is as it was, with ${counted(restored.imageCount, "image")}.`;
      replace(report, element("p", {}, text), element("div", { class: "row" }, this.#dismissal(report)));
      this.#say(text);
    } catch (error) {
      this.#show(change);
      if (error.isChange) this.referencesChanged();
      report.prepend(notice("bad", `Not undone: ${error.message}`));
    } finally {
      finish();
    }
  }

  #newReport() {
    const report = element("li", { class: "card stack tight wall-report", tabindex: -1 });
    this.#reports.prepend(report);
    while (this.#reports.children.length > REPORTS) this.#reports.lastElementChild?.remove();
    report.focus({ preventScroll: true });
    report.scrollIntoView({ block: "nearest" });
    return report;
  }

  #dismissal(report) {
    return button("Close", () => report.remove(), { class: "quiet" });
  }
}

/** Shows what a load of the reference is doing, until it is finished. */
function showProgress(report, referenceId, title) {
  const text = element("p", { class: "small quiet-text" }, "sending the image");
  const bar = element("progress", { max: 1, "aria-label": title });
  replace(report, element("p", { role: "status" }, `${title}…`), bar, text);
  const timer = setInterval(async () => {
    const [loading] = await activeLoads(referenceId).catch(() => []);
    if (!loading) return;
    text.textContent = `${STAGES[loading.stage] ?? ""} ${loading.total > 1 ? `${loading.done} of ${loading.total}` : ""}`;
    if (loading.total) bar.value = loading.done / loading.total;
  }, PROGRESS_EVERY_MS);
  return () => clearInterval(timer);
}

/** The image as its caller sent it. */
async function original(tile) {
  try {
    const response = await open(`/watch/images/${tile.id}`);
    return new File([await response.blob()], tile.name || "from the wall");
  } catch (error) {
    if (error.status === 404) tile.isKept = false;
    throw error;
  }
}
