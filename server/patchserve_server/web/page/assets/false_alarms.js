// "This is fine": a false alarm becomes an image of its reference, in one press, and can be undone.

import { call, open } from "./api.js";
import { activeLoads, getReference, load, restore } from "./contract.js";
import { button, element, notice, replace } from "./elements.js";
import { tileName } from "./wall_tiles.js";
import { counted, ratioText } from "./words.js";

const PROGRESS_EVERY_MS = 400;
const ANOMALIES_AGAIN = 12;
const INTACT_AGAIN = 8;
const REPORTS = 4;
const STAGES = {
  RECEIVE: "reading the image", QUANTIZE: "preparing the network", EMBED: "computing its patches",
  CORESET: "choosing patches", CALIBRATE: "calibrating", SAVE: "saving",
};

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
      const reference = await load(id, [image], { append: true, expectedRevision: before });
      this.#state.change(id, reference.revision, reference.imageCount);
      finish();
      this.#added(tile, report, reference, before);
      void this.#inspectAgain(tile, report.querySelector(".wall-effect"), reference);
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
    const { reference } = await getReference(tile.referenceId);
    this.#state.change(reference.id, reference.revision, reference.imageCount);
    replace(report,
      notice("info", `Somebody else has just changed ${reference.id}: it has ${counted(reference.imageCount, "image")} now. Nothing was added. `,
        "Add this image to the reference as it is now?"),
      element("div", { class: "row" },
        button("Add it", () => void this.#alone(report, () => this.#add(tile, report)), { class: "main" }),
        button("Leave it", () => report.remove())));
  }

  #added(tile, report, reference, before, effect = "Inspecting the last images again…") {
    const undo = button("Undo", () => void this.#alone(report, () => this.#undo(tile, report, reference, before)));
    const note = element("span", { class: "small quiet-text" });
    replace(report,
      element("p", {}, element("strong", {}, `${tileName(tile)} is now an image of ${reference.id}`),
        `, which has ${counted(reference.imageCount, "image")}.`),
      element("p", { class: "wall-effect" }, effect),
      tile.isFrame && element("p", { class: "small quiet-text" },
        "This image came from a stream. A stream that is open keeps the reference that it began with: its next frames are judged as before, until its program opens it anew."),
      element("div", { class: "row" }, undo, this.#dismissal(report), note));
    const lock = () => {
      undo.disabled = true;
      note.textContent = `${reference.id} was changed again, so this can no longer be undone here.`;
    };
    this.#undoable.get(reference.id)?.lock();
    this.#undoable.set(reference.id, { revision: reference.revision, lock });
    this.#say(`Added. ${reference.id} has ${counted(reference.imageCount, "image")}.`);
  }

  async #undo(tile, report, reference, before) {
    const finish = showProgress(report, reference.id, `Putting back ${reference.id} as it was`);
    try {
      this.#undoable.delete(reference.id);
      const restored = await restore(reference.id, before, reference.revision);
      this.#state.change(restored.id, restored.revision, restored.imageCount);
      const text = `Undone: ${restored.id} is as it was, with ${counted(restored.imageCount, "image")}.`;
      replace(report, element("p", {}, text), element("div", { class: "row" }, this.#dismissal(report)));
      this.#say(text);
    } catch (error) {
      this.#added(tile, report, reference, before, "");
      if (error.isChange) this.referencesChanged();
      report.prepend(notice("bad", `Not undone: ${error.message}`));
    } finally {
      finish();
    }
  }

  /** What the verdicts on the last images would be now. */
  async #inspectAgain(tile, effect, reference) {
    const isOf = (other) => other !== tile && other.isKept && other.referenceId === reference.id;
    const anomalies = this.#state.anomalies.filter(isOf).slice(0, ANOMALIES_AGAIN);
    const intact = this.#state.tiles.filter((other) => isOf(other) && !other.isAnomalous).slice(0, INTACT_AGAIN);
    const inspected = [];
    try {
      for (const each of [tile, ...anomalies, ...intact]) {
        if (this.#state.references.get(reference.id)?.revision !== reference.revision) return;
        if (await inspectAgain(each)) inspected.push(each);
        this.#onChange();
      }
    } catch (error) {
      effect.textContent = `The last images could not be inspected again: ${error.message}`;
      return;
    }
    effect.textContent = effectText(tile, anomalies.filter((each) => inspected.includes(each)), intact.filter((each) => inspected.includes(each)));
    this.#say(effect.textContent);
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

/** The verdict with the current revision. Returns whether the server still has the image. */
async function inspectAgain(tile) {
  try {
    const { anomaly, reference_revision: revision } = await call("GET", `/watch/inspections/${tile.id}:again`);
    tile.again = { isAnomalous: anomaly.is_anomalous, ratio: anomaly.raw_score / anomaly.raw_threshold, revision };
    return true;
  } catch (error) {
    if (error.status !== 404) throw error;
    tile.isKept = false;
    return false;
  }
}

function effectText(tile, anomalies, intact) {
  const parts = [];
  if (tile.again) {
    const verdict = tile.again.isAnomalous
      ? "is still above the threshold: add more images like it, or make the reference less sensitive"
      : "counts as intact now";
    parts.push(`This image ${verdict}: ${ratioText(tile.again.ratio)}, before ${ratioText(tile.ratio)}.`);
  }
  const fine = anomalies.filter((each) => !each.again.isAnomalous).length;
  if (anomalies.length === 1) parts.push(`The other anomaly kept here would ${fine ? "count as intact too" : "stay one"}.`);
  else if (anomalies.length) parts.push(`Of the ${anomalies.length} other anomalies kept here, ${fine || "none"} would count as intact.`);
  if (fine) parts.push("If one of them is damaged, press Undo.");
  const bad = intact.filter((each) => each.again.isAnomalous).length;
  if (bad) parts.push(`Of the last ${counted(intact.length, "intact image")}, ${bad} would be anomalous.`);
  else if (intact.length) parts.push(`The last ${intact.length === 1 ? "intact image" : `${intact.length} intact images`} would stay intact.`);
  return parts.join(" ") || "No image is kept here that could be inspected again.";
}
