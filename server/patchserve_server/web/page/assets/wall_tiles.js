// The tiles of the wall: the last images in a grid, and the anomalies that stay.

import { button, element } from "./elements.js";
import { sign, verdictBadge } from "./verdict.js";
import { ratioText, verdictText } from "./words.js";

/** @param {import("./wall_state.js").Tile} tile */
export const tileName = (tile) => tile.name || "image without a name";

/** @param {number} timeMs */
export const timeText = (timeMs) => new Date(timeMs).toLocaleTimeString("en-GB");

/**
 * A tile of the grid.
 * @param {import("./wall_state.js").Tile} tile
 * @param {() => void} look
 */
export function gridTile(tile, look) {
  return element("li", {},
    element("button", { type: "button", class: `wall-tile ${tile.isAnomalous ? "bad" : "good"}`, onclick: look, title: tileName(tile) },
      picture(tile),
      element("span", { class: "wall-words" }, sign(tile.isAnomalous), ratioText(tile.ratio)),
      element("span", { class: "visually-hidden" }, `${verdictText(tile)}. ${tile.referenceId}, ${tileName(tile)}`)));
}

/**
 * An anomaly that stays.
 * @param {import("./wall_state.js").Tile} tile
 * @param {{look: () => void, fine: () => void}} actions
 */
export function anomalyCard(tile, { look, fine }) {
  const again = element("p", { class: "small wall-again" });
  const isFine = button("This is fine", fine, { class: "wall-fine", "aria-describedby": "wall-meaning", "aria-label": `This is fine: ${tileName(tile)}` });
  const node = element("li", { class: "wall-anomaly" },
    element("button", { type: "button", class: "wall-tile bad", onclick: look, "aria-label": `Look at ${tileName(tile)}` }, picture(tile)),
    verdictBadge(tile),
    element("p", { class: "name small", title: tileName(tile) }, tileName(tile)),
    element("p", { class: "name small quiet-text" }, `${tile.referenceId} · ${timeText(tile.timeMs)}`),
    again,
    isFine);

  /** @param {boolean} isBusy whether an image is being added now */
  function draw(isBusy) {
    again.textContent = againText(tile);
    again.className = `small wall-again ${tile.again?.isAnomalous ? "bad" : "good"}`;
    const why = whyNotFine(tile);
    isFine.disabled = isBusy || why !== "";
    isFine.title = why;
    isFine.textContent = why ? (tile.isKept ? "Counts as intact" : "Not kept") : "This is fine";
  }

  draw(false);
  return { node, draw };
}

/**
 * Why the image cannot be added to its reference; "": it can.
 * @param {import("./wall_state.js").Tile} tile
 */
export function whyNotFine(tile) {
  if (!tile.isKept) return "The server has not kept this image. It keeps the last ones, and few a second.";
  return tile.again && !tile.again.isAnomalous ? "With the reference as it is now, this image counts as intact." : "";
}

/** What the verdict would be with a later revision. */
export function againText(tile) {
  if (!tile.again) return "";
  return `Now: ${tile.again.isAnomalous ? "anomalous" : "intact"}, ${ratioText(tile.again.ratio)}`;
}

function picture(tile) {
  if (tile.url) return element("img", { src: tile.url, alt: "", decoding: "async" });
  return element("span", { class: "wall-blank" }, "no thumbnail");
}

/**
 * Brings a list up to date. What stays is not moved, so it keeps the focus.
 * @param {Element} list
 * @param {import("./wall_state.js").Tile[]} tiles
 * @param {Map<string, any>} shown what is in the list, by tile
 * @param {(tile: import("./wall_state.js").Tile) => {node: Element}} make
 */
export function bringUpToDate(list, tiles, shown, make) {
  const wanted = new Set(tiles.map((tile) => tile.id));
  for (const [id, { node }] of shown) {
    if (wanted.has(id)) continue;
    node.remove();
    shown.delete(id);
  }
  let next = list.firstElementChild;
  for (const tile of tiles) {
    const known = shown.get(tile.id);
    if (known) {
      next = known.node.nextElementSibling;
      continue;
    }
    const made = make(tile);
    shown.set(tile.id, made);
    list.insertBefore(made.node, next);
  }
}
