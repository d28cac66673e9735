// The images of a reference, each loaded when it comes into view.

import { referenceImage } from "./contract.js";
import { button, element, replace } from "./elements.js";
import { counted } from "./words.js";

const PAGE = 60;
const AT_ONCE = 4;

/**
 * @param {import("./messages.js").Reference} reference
 * @param {{name: string, widthPx: number, heightPx: number}[]} images
 * @param {boolean} mayLook whether this person may see the images themselves, not only their names
 * @returns {{element: HTMLElement, stop: () => void}}
 */
export function imageGrid(reference, images, mayLook) {
  const abort = new AbortController();
  /** @type {(() => Promise<void>)[]} */
  const waiting = [];
  let running = 0;

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      observer.unobserve(entry.target);
      waiting.push(() => fetchImage(/** @type {HTMLElement} */ (entry.target)));
    }
    next();
  }, { rootMargin: "200px" });

  function next() {
    while (running < AT_ONCE && waiting.length) {
      running += 1;
      waiting.shift()?.().finally(() => { running -= 1; next(); });
    }
  }

  async function fetchImage(figure) {
    try {
      const blob = await referenceImage(reference.id, figure.dataset.index, reference.revision, abort.signal);
      const image = figure.querySelector("img");
      const url = URL.createObjectURL(blob);
      image.onload = () => URL.revokeObjectURL(url);
      image.src = url;
    } catch {
      figure.classList.add("missing");
    }
  }

  const list = element("ul", { class: "grid" });
  const more = button("", showMore);
  let shown = 0;

  function showMore() {
    const some = images.slice(shown, shown + PAGE).map((image, offset) => cell(image, shown + offset, mayLook));
    list.append(...some);
    if (mayLook) some.forEach((each) => observer.observe(each));
    shown += some.length;
    more.hidden = shown >= images.length;
    more.textContent = `Show more (${counted(images.length - shown, "image")})`;
  }

  showMore();
  const stop = () => {
    observer.disconnect();
    abort.abort();
    waiting.length = 0;
  };
  return { element: element("div", { class: "stack tight" }, list, more), stop };
}

function cell(image, index, mayLook) {
  const name = image.name || `image ${index + 1}`;
  const size = image.widthPx ? `${image.widthPx} × ${image.heightPx}` : "";
  return element("li", { "data-index": index }, mayLook && element("img", { alt: "" }),
    element("span", { class: "name", title: name }, name), element("span", { class: "small quiet-text" }, size));
}
