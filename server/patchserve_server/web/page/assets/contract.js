// The calls of the contract that the page makes.

import { call, referencePath } from "./api.js";
import { imageOf, readInspection, readReference } from "./messages.js";

const OVERLAY = { overlay: true, heatmapScale: "HEATMAP_SCALE_CALIBRATED", overlayFormat: "OVERLAY_FORMAT_JPEG", overlayMaxSidePx: 1280 };

/** @returns {Promise<import("./messages.js").Reference[]>} all references, by name */
export async function listReferences() {
  const references = [];
  let token = "";
  do {
    const page = await call("GET", `/v1/references?page_size=1000&page_token=${encodeURIComponent(token)}`);
    references.push(...(page.references ?? []).map(readReference));
    token = page.nextPageToken ?? "";
  } while (token);
  return references;
}

/** A reference and what is known of its images. */
export async function getReference(id) {
  const answer = await call("GET", referencePath(id));
  const images = (answer.images ?? []).map((image) => ({
    name: image.name ?? "", widthPx: image.widthPx ?? 0, heightPx: image.heightPx ?? 0,
  }));
  return { reference: readReference(answer.reference), images };
}

/**
 * One image of a reference, as the network sees it.
 * @returns {Promise<Blob>}
 */
export async function referenceImage(id, index, revision, signal) {
  const answer = await call("GET", referencePath(id, `/images/${index}?expected_revision=${revision}`), { signal });
  return imageOf(answer.image, answer.mediaType);
}

/**
 * Inspects an image.
 * @param {string} id
 * @param {File} image
 * @param {{sensitivity?: number | null, signal?: AbortSignal}} [options] sensitivity null: that of the reference
 */
export async function infer(id, image, { sensitivity = null, signal } = {}) {
  const output = sensitivity === null ? OVERLAY : { ...OVERLAY, sensitivity };
  const json = { image: await base64Of(image), imageName: nameOf(image), output };
  return readInspection(await call("POST", referencePath(id, ":infer"), { json, signal }));
}

/**
 * Builds or extends a reference.
 * @param {string} id
 * @param {File[]} images
 * @param {{append?: boolean, expectedRevision?: string, signal?: AbortSignal}} [options]
 */
export async function load(id, images, { append = false, expectedRevision = "", signal } = {}) {
  const json = {
    images: await Promise.all(images.map(base64Of)),
    imageNames: images.map(nameOf),
    mode: append ? "LOAD_MODE_APPEND" : "LOAD_MODE_REPLACE",
    expectedRevision,
  };
  return readReference((await call("POST", referencePath(id, ":load"), { json, signal })).reference);
}

/** The active loads of a reference. */
export async function activeLoads(id) {
  const answer = await call("GET", `/v1/loads?reference_id=${encodeURIComponent(id)}`);
  return (answer.loads ?? []).map((each) => ({
    stage: (each.stage ?? "").replace("LOAD_STAGE_", ""), done: each.stepsDone ?? 0, total: each.stepsTotal ?? 0,
  }));
}

export async function tune(id, sensitivity, expectedRevision) {
  const json = { sensitivity, expectedRevision };
  return readReference((await call("POST", referencePath(id, ":tune"), { json })).reference);
}

export async function restore(id, revision, expectedRevision) {
  const json = { revision, expectedRevision };
  return readReference((await call("POST", referencePath(id, ":restore"), { json })).reference);
}

export async function remove(id, expectedRevision) {
  await call("DELETE", referencePath(id, `?expected_revision=${expectedRevision}`));
}

/** The name of a file as an image name: at most 128 bytes of printable characters. */
function nameOf(file) {
  let name = file.name.replace(/\p{C}/gu, "");
  while (new TextEncoder().encode(name).length > 128) name = [...name].slice(0, -1).join("");
  return name;
}

/** @param {Blob} file @returns {Promise<string>} */
function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(new Error("An image cannot be read. Was its file moved or changed?"));
    reader.readAsDataURL(file);
  });
}
