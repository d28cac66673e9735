// Images that people gave to inspect, and what became of them. They stay while the page is open.

import { infer } from "./contract.js";

const MOST = 300; // images given together; and of those that are finished, how many stay
const AT_ONCE = 2;
const TRIES = 6;

/**
 * @typedef {object} Item
 * @property {string} referenceId
 * @property {File} file
 * @property {string} name
 * @property {"waiting" | "running" | "done" | "failed"} state
 * @property {import("./messages.js").Inspection | null} inspection
 * @property {string} problem
 * @property {boolean} [isFromCamera]
 * @property {HTMLImageElement} [thumbnail]
 */

/** Inspects images, two at once, in the order in which they came. */
export class Inspections {
  /** @type {Item[]} the newest first */
  items = [];
  /** @type {(item: Item) => void} told when an item has changed */
  onChange = () => {};
  /** @type {Item[]} */
  #waiting = [];
  #running = 0;

  /**
   * @param {string} referenceId
   * @param {File[]} files
   * @returns {Item[]} those that are inspected: the first ones, if there are very many
   */
  add(referenceId, files) {
    const added = files.slice(0, MOST).map((file) => itemOf(referenceId, file));
    this.items = kept([...added, ...this.items]);
    this.#waiting.push(...added);
    this.#next();
    return added;
  }

  /** Inspects one image now, beside those that wait. @param {string} referenceId @param {File} file */
  async addNow(referenceId, file) {
    const item = itemOf(referenceId, file);
    this.items = kept([item, ...this.items]);
    await this.#inspect(item);
    return item;
  }

  /** @param {string} referenceId */
  of(referenceId) {
    return this.items.filter((item) => item.referenceId === referenceId);
  }

  /** Inspects all images of a reference once more. @param {string} referenceId */
  repeat(referenceId) {
    const finished = this.of(referenceId).filter(isFinished);
    for (const item of finished) item.state = "waiting";
    this.#waiting.push(...finished);
    this.#next();
  }

  /** @param {string} referenceId */
  clear(referenceId) {
    this.items = this.items.filter((item) => item.referenceId !== referenceId);
  }

  #next() {
    while (this.#running < AT_ONCE) {
      const item = this.#waiting.shift();
      if (!item) return;
      if (this.items.includes(item)) void this.#inspect(item).then(() => this.#next());
    }
  }

  async #inspect(item) {
    this.#running += 1;
    item.state = "running";
    this.onChange(item);
    try {
      item.inspection = await patiently(() => infer(item.referenceId, item.file));
      item.state = "done";
    } catch (error) {
      item.problem = error.message;
      item.state = "failed";
    } finally {
      this.#running -= 1;
      this.onChange(item);
    }
  }
}

const isFinished = (/** @type {Item} */ item) => item.state === "done" || item.state === "failed";

/** Without the oldest that are finished. */
function kept(/** @type {Item[]} */ items) {
  let places = MOST;
  return items.filter((item) => !isFinished(item) || (places -= 1) >= 0);
}

function itemOf(referenceId, file) {
  return { referenceId, file, name: file.name, state: /** @type {const} */ ("waiting"), inspection: null, problem: "" };
}

/** Repeats a call that a busy server rejected, after the time that the server asks for. */
async function patiently(work) {
  for (let left = TRIES; ; left -= 1) {
    try {
      return await work();
    } catch (error) {
      const delay = error.details?.find((detail) => detail.retry_delay)?.retry_delay;
      if (!delay || left <= 1) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(0.2, parseFloat(delay))));
    }
  }
}
