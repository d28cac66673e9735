// Where people drop, choose, paste or photograph images.

import { element } from "./elements.js";

export const IMAGE_TYPES = "image/jpeg,image/png,image/webp,image/bmp,image/tiff";
const IMAGE_NAME = /\.(jpe?g|png|webp|bmp|tiff?)$/i;

/**
 * A zone for images.
 * @param {object} options
 * @param {string} options.id of the input
 * @param {string} options.title such as "Drop images here"
 * @param {string} options.action the words of the button, such as "Choose images"
 * @param {(files: File[]) => void} options.onImages gets at least one
 * @param {(text: string) => void} options.onProblem gets a sentence
 * @param {import("./elements.js").Child[]} [options.more] further elements beside the button
 * @returns {HTMLElement}
 */
export function imageInput({ id, title, action, onImages, onProblem, more = [] }) {
  const take = (/** @type {File[]} */ files) => {
    const images = files.filter(isImage);
    const others = files.length - images.length;
    if (images.length) onImages(images);
    if (others) onProblem(`${others === 1 ? "One file is" : `${others} files are`} left out: not JPEG, PNG, WebP, BMP or TIFF.`);
  };
  const input = chooser(id, { multiple: true }, take);
  const zone = element(
    "div",
    { class: "drop", ondragover: hover, ondragleave: () => zone.classList.remove("over"), ondrop: dropped },
    element("p", { class: "drop-title" }, title),
    element("div", { class: "row center" }, chooserLabel(input, id, action), ...more),
  );

  function hover(event) {
    event.preventDefault();
    zone.classList.add("over");
  }

  async function dropped(event) {
    event.preventDefault();
    zone.classList.remove("over");
    take(await filesOf(event.dataTransfer));
  }

  return zone;
}

/**
 * A button that opens the camera of a phone; on other computers it opens a file dialog.
 * @param {string} id
 * @param {string} text
 * @param {(files: File[]) => void} onImages
 */
export function photoButton(id, text, onImages) {
  const input = chooser(id, { capture: "environment" }, onImages);
  return chooserLabel(input, id, text);
}

function chooser(id, attributes, take) {
  return element("input", {
    type: "file", id, class: "visually-hidden", accept: IMAGE_TYPES, ...attributes,
    onchange: (event) => {
      take([...event.target.files]);
      event.target.value = ""; // so that the same file can be chosen again
    },
  });
}

function chooserLabel(input, id, text) {
  return element("span", { class: "chooser" }, input, element("label", { for: id, class: "as-button" }, text));
}

const isImage = (/** @type {File} */ file) =>
  file.type ? IMAGE_TYPES.split(",").includes(file.type) : IMAGE_NAME.test(file.name);

/** The files that were dropped, those in folders too. */
async function filesOf(/** @type {DataTransfer} */ transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesOfEntry))).flat();
}

async function filesOfEntry(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return files;
    files.push(...(await Promise.all(some.map(filesOfEntry))).flat());
  }
}
