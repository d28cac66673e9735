// Builds elements. Text goes in as text only, so no name of a file or reference can become markup.

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. A function is a listener ("onclick"), true is an attribute without value, false and null are left out.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {any}
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * An element of a drawing.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @param {string} text
 * @param {(event: MouseEvent) => void} onclick
 * @param {Attributes} [attributes]
 * @returns {HTMLButtonElement}
 */
export function button(text, onclick, attributes = {}) {
  return element("button", { type: "button", onclick, ...attributes }, text);
}

/**
 * A message in the page. Screen readers read it when it appears.
 * @param {"info" | "good" | "bad"} kind
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function notice(kind, ...children) {
  return element("p", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" }, ...children);
}

/**
 * Puts other children into a node.
 * @param {Element} node
 * @param {...Child} children
 */
export function replace(node, ...children) {
  node.replaceChildren(...shown(children));
}

/**
 * Changes the text of a node, if it is another one.
 * @param {Element} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...shown(children));
  return node;
}

function shown(children) {
  return children.filter((child) => child !== null && child !== undefined && child !== false);
}
