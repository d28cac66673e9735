// The calls of the contract that the page makes.

import { call, referencePath } from "./api.js";
import { imageOf, readCost, readInspection, readReference } from "./messages.js";

const OUTPUT = {
  overlay: true,
  heatmap_scale: "HEATMAP_SCALE_CALIBRATED", // its colors agree with the verdict
  overlay_format: "OVERLAY_FORMAT_JPEG",
  overlay_max_side_px: 1280,
};

/** @returns {Promise<import("./messages.js").Reference[]>} all references, by name */
export async function listReferences() {
  const references = [];
  let token = "";
  do {
    const page = await call("GET", `/v1/references?page_size=1000&page_token=${encodeURIComponent(token)}`);
    references.push(...page.references.map(readReference));
    token = page.next_page_token;
  } while (token);
  return references;
}

/** A reference and what is known of its images. */
export async function getReference(id) {
  const answer = await call("GET", referencePath(id));
  const images = answer.images.map((image) => ({ name: image.name, widthPx: image.width_px, heightPx: image.height_px }));
  return { reference: readReference(answer.reference), images };
}

/**
 * One image of a reference, as the network sees it.
 * @returns {Promise<Blob>}
 */
export async function referenceImage(id, index, revision, signal) {
  const answer = await call("GET", referencePath(id, `/images/${index}?expected_revision=${revision}`), { signal });
  return imageOf(answer.image, answer.media_type);
}

/**
 * Inspects an image.
 * @param {string} id
 * @param {File} image
 */
export async function infer(id, image) {
  const form = new FormData();
  form.append("image", image, image.name);
  form.append("output", JSON.stringify(OUTPUT));
  return readInspection(await call("POST", referencePath(id, ":infer"), { form }));
}

/**
 * Builds or extends a reference.
 * @param {string} id
 * @param {File[]} images
 * @param {{append?: boolean, expectedRevision?: string, fields?: import("./load_options.js").LoadFields, signal?: AbortSignal}} [options]
 */
export async function load(id, images, { append = false, expectedRevision = "", fields = {}, signal } = {}) {
  const form = new FormData();
  images.forEach((image) => form.append("images", image, image.name));
  form.append("mode", append ? "LOAD_MODE_APPEND" : "LOAD_MODE_REPLACE");
  form.append("expected_revision", expectedRevision);
  Object.entries(fields).forEach(([name, value]) => form.append(name, value));
  const answer = await call("POST", referencePath(id, ":load"), { form, signal });
  return { reference: readReference(answer.reference), cost: readCost(answer.cost) };
}

/** The active loads of a reference. */
export async function activeLoads(id) {
  const answer = await call("GET", `/v1/loads?reference_id=${encodeURIComponent(id)}`);
  return answer.loads.map((each) => ({
    stage: each.stage.replace("LOAD_STAGE_", ""), done: each.steps_done, total: each.steps_total,
  }));
}

/**
 * The raw scores of recent inspections with the bank of a reference, the newest last.
 * @param {string} id
 * @returns {Promise<number[]>}
 */
export async function recentScores(id) {
  const answer = await call("GET", `/watch/scores?reference_id=${encodeURIComponent(id)}`);
  return answer.scores.map((score) => score.raw_score);
}

export async function tune(id, sensitivity, expectedRevision) {
  const json = { sensitivity, expected_revision: expectedRevision };
  return readReference((await call("POST", referencePath(id, ":tune"), { json })).reference);
}

export async function restore(id, revision, expectedRevision) {
  const json = { revision, expected_revision: expectedRevision };
  return readReference((await call("POST", referencePath(id, ":restore"), { json })).reference);
}

export async function remove(id, expectedRevision) {
  await call("DELETE", referencePath(id, `?expected_revision=${expectedRevision}`));
}
