// Small views of files that were chosen.

import { button, element } from "./elements.js";

const SHOWN = 24;

/**
 * The files, each with a button that takes it out.
 * @param {File[]} files
 * @param {(index: number) => void} remove
 */
export function thumbnails(files, remove) {
  const items = files.slice(0, SHOWN).map((file, index) =>
    element(
      "li",
      { class: "thumbnail" },
      fileImage(file, ""),
      element("span", { class: "name", title: file.name }, file.name),
      button("×", () => remove(index), { class: "remove", "aria-label": `Remove ${file.name}` }),
    ));
  const others = files.length - SHOWN;
  return element("ul", { class: "thumbnails" }, ...items, others > 0 && element("li", { class: "others" }, `and ${others} more`));
}

/**
 * An image of a file. A format that this browser does not show, such as TIFF, becomes a gray square.
 * @param {Blob} file
 * @param {string} alt
 * @returns {HTMLImageElement}
 */
export function fileImage(file, alt) {
  const url = URL.createObjectURL(file);
  const release = () => URL.revokeObjectURL(url);
  return element("img", {
    src: url, alt, onload: release,
    onerror: (event) => {
      release();
      event.target.classList.add("unknown");
    },
  });
}
