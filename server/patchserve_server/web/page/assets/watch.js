// The screen Watch: what the server inspects now.

import { element, replace } from "./elements.js";

/** @param {HTMLElement} root @param {import("./app.js").App} app */
export function show(root, app) {
  replace(root, element("h1", {}, "Watch"));
  return () => {};
}
