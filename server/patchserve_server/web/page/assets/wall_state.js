// What the wall shows: the last images, the anomalies that stay, the scores of each reference, and the numbers.

import { imageOf } from "./messages.js";

export const SHOWN_MS = 5 * 60_000; // of the scores
const MAX_TILES = 60;
const MAX_ANOMALIES = 100;
const MAX_POINTS = 1500;
const MAX_FAILURES = 20;
const MAX_HEARD = 32;
const LATENCY_MS = 60_000;
const RATE_MS = 10_000;

/**
 * @typedef {object} Tile
 * @property {string} id
 * @property {number} number
 * @property {number} timeMs of the server
 * @property {string} client
 * @property {string} name "": the caller gave none
 * @property {boolean} isFrame of a stream
 * @property {string} referenceId
 * @property {string} revision
 * @property {boolean} isAnomalous
 * @property {number} ratio
 * @property {number} totalMs
 * @property {boolean} isKept whether the server still has the image
 * @property {string} url of its thumbnail; "": it has none
 * @property {{isAnomalous: boolean, ratio: number, revision: string} | null} again the verdict with a later revision
 */

/** @typedef {{timeMs: number, ratio: number, isAnomalous: boolean, revision: string}} Point */

/**
 * @typedef {object} WatchedReference
 * @property {string} id
 * @property {string} revision "": it was deleted
 * @property {number} imageCount
 * @property {Point[]} points
 * @property {string[]} heard the revisions of the last events
 * @property {string} awaited the revision of an answer whose event has not come yet; "": none
 */

export class WallState {
  /** @type {Tile[]} the newest first */
  tiles = [];
  /** @type {Tile[]} the newest first */
  anomalies = [];
  /** @type {Map<string, WatchedReference>} */
  references = new Map();
  /** @type {{timeMs: number, name: string, client: string, referenceId: string, message: string}[]} the newest first */
  failures = [];
  failed = 0;
  refused = 0;
  notShown = 0;
  missed = 0;
  /** @type {{timeMs: number, count: number}[]} */
  #inspected = [];
  /** @type {{timeMs: number, totalMs: number, isAnomalous: boolean}[]} */
  #latencies = [];
  #clockMs = 0; // the server's clock, minus this one
  #sinceMs = 0;

  /** The time of the server. */
  now() {
    return Date.now() + this.#clockMs;
  }

  /** The event `snapshot`. What was on the wall before the connection was lost stays there. */
  begin(json) {
    this.#clockMs = json.now_ms - Date.now();
    this.#sinceMs = json.now_ms;
    this.missed = json.missed;
    for (const each of json.references) {
      const points = pointsOf(each.scores);
      const first = points[0]?.timeMs ?? Infinity;
      const earlier = this.references.get(each.reference_id)?.points.filter((point) => point.timeMs < first) ?? [];
      const reference = this.#reference(each.reference_id);
      reference.awaited = ""; // a snapshot has no earlier changes
      this.#change(each);
      reference.points = [...earlier, ...points];
    }
    const kept = new Set(json.tiles.map((tile) => tile.id));
    for (const tile of this.#all()) tile.isKept &&= kept.has(tile.id);
    for (const tile of json.tiles) this.#add(tile);
    this.#trim();
  }

  /**
   * The event `update`.
   * @returns {Tile[]} the new anomalies
   */
  update(json) {
    const added = [];
    for (const each of json.changes) this.#change(each);
    for (const each of json.tiles) {
      const tile = this.#add(each);
      if (!tile) continue;
      const { timeMs, ratio, isAnomalous, revision, totalMs } = tile;
      this.#reference(tile.referenceId).points.push({ timeMs, ratio, isAnomalous, revision });
      this.#latencies.push({ timeMs, totalMs, isAnomalous });
      if (isAnomalous) added.push(tile);
    }
    const timeMs = this.now();
    this.#inspected.push({ timeMs, count: json.inspected });
    this.failures.unshift(...json.failures.reverse().map((failure) => ({
      timeMs, name: failure.name, client: failure.client, referenceId: failure.reference_id, message: failure.message,
    })));
    this.failed += json.failed;
    this.refused += json.refused;
    this.notShown += json.not_shown;
    this.#trim();
    return added;
  }

  /** Images a second, and of the last minute: how many are anomalous, and how long they took. */
  numbers() {
    const now = this.now();
    const watchedMs = Math.min(RATE_MS, Math.max(1000, now - this.#sinceMs));
    const count = this.#inspected.filter((each) => each.timeMs > now - watchedMs).reduce((sum, each) => sum + each.count, 0);
    const recent = this.#latencies.filter((each) => each.timeMs > now - LATENCY_MS);
    const sorted = recent.map((each) => each.totalMs).sort((a, b) => a - b);
    const percentile = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
    return {
      perSecond: count / (watchedMs / 1000),
      images: recent.length,
      anomalous: recent.filter((each) => each.isAnomalous).length,
      medianMs: percentile(0.5),
      p95Ms: percentile(0.95),
    };
  }

  /** Releases the thumbnails. */
  clear() {
    for (const tile of this.#all()) URL.revokeObjectURL(tile.url);
    this.tiles = [];
    this.anomalies = [];
  }

  /**
   * A call begins whose answer has the reference. Until the event of that revision comes, events are older than the answer.
   * @param {string} id
   * @returns {(reference: import("./messages.js").Reference) => void} takes the answer
   */
  awaitAnswer(id) {
    const known = this.#reference(id);
    known.heard = [];
    return ({ revision, imageCount }) => {
      if (known.heard.includes(revision)) return; // the events are as new as the answer, or newer
      known.awaited = revision;
      this.#setRevision(known, revision, imageCount);
    };
  }

  /** A reference has this revision now. Verdicts with others no longer count. */
  #setRevision(reference, revision, imageCount) {
    reference.revision = revision;
    reference.imageCount = imageCount;
    for (const tile of this.#all()) {
      if (tile.referenceId === reference.id && tile.again?.revision !== revision) tile.again = null;
    }
  }

  #all() {
    return new Set([...this.tiles, ...this.anomalies]);
  }

  #add(json) {
    const known = this.tiles.find((tile) => tile.id === json.id) ?? this.anomalies.find((tile) => tile.id === json.id);
    if (known) return null;
    const tile = readTile(json);
    insert(this.tiles, tile);
    if (tile.isAnomalous) insert(this.anomalies, tile);
    return tile;
  }

  #reference(id) {
    const known = this.references.get(id) ?? { id, revision: "", imageCount: 0, points: [], heard: [], awaited: "" };
    this.references.set(id, known);
    return known;
  }

  #change({ reference_id: id, revision, image_count: imageCount }) {
    const reference = this.#reference(id);
    reference.heard = [...reference.heard, revision].slice(-MAX_HEARD);
    if (reference.awaited && reference.awaited !== revision) return;
    reference.awaited = "";
    this.#setRevision(reference, revision, imageCount ?? 0);
  }

  #trim() {
    const now = this.now();
    const before = this.#all();
    this.tiles.length = Math.min(this.tiles.length, MAX_TILES);
    this.anomalies.length = Math.min(this.anomalies.length, MAX_ANOMALIES);
    this.failures.length = Math.min(this.failures.length, MAX_FAILURES);
    const after = this.#all();
    for (const tile of before) if (!after.has(tile)) URL.revokeObjectURL(tile.url);
    for (const reference of this.references.values()) {
      reference.points = reference.points.filter((point) => point.timeMs > now - SHOWN_MS).slice(-MAX_POINTS);
    }
    this.#inspected = this.#inspected.filter((each) => each.timeMs > now - RATE_MS);
    this.#latencies = this.#latencies.filter((each) => each.timeMs > now - LATENCY_MS).slice(-10 * MAX_POINTS);
  }
}

/** Puts a tile into a list whose newest comes first. */
function insert(tiles, tile) {
  const place = tiles.findIndex((other) => other.timeMs <= tile.timeMs && other.number <= tile.number);
  tiles.splice(place < 0 ? tiles.length : place, 0, tile);
}

/** @returns {Tile} */
function readTile(json) {
  return {
    id: json.id,
    number: json.number,
    timeMs: json.time_ms,
    client: json.client,
    name: json.name,
    isFrame: json.is_frame,
    referenceId: json.reference_id,
    revision: json.reference_revision,
    isAnomalous: json.is_anomalous,
    ratio: json.raw_score / json.raw_threshold,
    totalMs: json.total_ms,
    isKept: json.is_kept,
    url: json.thumbnail ? URL.createObjectURL(imageOf(json.thumbnail, "image/jpeg")) : "",
    again: null,
  };
}

/** @returns {Point[]} */
function pointsOf(scores) {
  return scores.time_ms.map((timeMs, index) => ({
    timeMs,
    ratio: scores.raw_score[index] / scores.raw_threshold[index],
    isAnomalous: scores.raw_score[index] > scores.raw_threshold[index],
    revision: scores.revisions[scores.revision[index]],
  }));
}
