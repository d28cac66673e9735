// The larger look at an image of the wall.

import { call, open } from "./api.js";
import { button, element, notice, replace } from "./elements.js";
import { readInspection } from "./messages.js";
import { fact, resultView } from "./result_view.js";
import { againText, tileName, timeText, whyNotFine } from "./wall_tiles.js";

/** What pressing the button means. */
export const MEANING =
  "This image joins its reference: it, and others like it, will count as undamaged. You can undo it.";

/**
 * Opens the look.
 * @param {import("./wall_state.js").Tile} tile
 * @param {(() => void) | null} fine adds the image to its reference; null: not now
 */
export function lookAt(tile, fine) {
  const urls = [];
  const closed = new AbortController();
  const body = element("div", { class: "stack" }, element("p", { class: "quiet-text" }, "Loading the image…"));
  const dialog = element("dialog", { class: "wall-look", "aria-labelledby": "wall-look-title" },
    element("div", { class: "row between" },
      element("h2", { id: "wall-look-title", class: "name" }, tileName(tile)),
      button("Close", () => dialog.close(), { class: "quiet" })),
    body);
  dialog.addEventListener("close", () => {
    closed.abort();
    urls.forEach((url) => URL.revokeObjectURL(url));
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal(); // the browser puts the focus back when it closes
  void fill();

  async function fill() {
    const parts = [facts(tile)];
    try {
      parts.unshift(await result(tile, urls, closed.signal));
      if (tile.isAnomalous) parts.push(falseAlarm());
    } catch (error) {
      if (closed.signal.aborted) return;
      if (error.status === 404) tile.isKept = false;
      parts.unshift(notice("info", error.message), tile.url && element("img", { class: "wall-large", src: tile.url, alt: tileName(tile) }));
    }
    replace(body, ...parts);
  }

  function falseAlarm() {
    if (whyNotFine(tile)) return notice("good", whyNotFine(tile));
    const press = button("This is fine", () => { dialog.close(); fine?.(); }, { class: "main", disabled: !fine, "aria-describedby": "wall-look-meaning" });
    return element("div", { class: "inset row between" },
      element("p", { id: "wall-look-meaning", class: "grow" }, element("strong", {}, "A false alarm? "), MEANING), press);
  }
}

async function result(tile, urls, signal) {
  if (!tile.isKept) throw new Error(whyNotFine(tile));
  const [file, json] = await Promise.all([
    open(`/watch/images/${tile.id}`, { signal }).then((response) => response.blob()),
    call("GET", `/watch/inspections/${tile.id}`, { signal }),
  ]);
  return resultView({ file, name: tileName(tile), inspection: readInspection(json) }, urls);
}

function facts(tile) {
  return element("dl", { class: "facts" },
    ...fact("Reference", tile.referenceId, againText(tile)),
    ...fact("Inspected", timeText(tile.timeMs), tile.isFrame ? "a frame of a stream" : "a single image"),
    ...fact("Caller", tile.client));
}
