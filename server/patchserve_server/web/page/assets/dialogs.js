// Questions before something changes.

import { button, element } from "./elements.js";

/**
 * Asks a question. The safe answer has the focus.
 * @param {object} question
 * @param {string} question.title
 * @param {import("./elements.js").Child[]} question.text
 * @param {string} question.action the words of the button that does it
 * @param {boolean} [question.isDangerous]
 * @param {string} [question.typed] what to type before the button works
 * @returns {Promise<boolean>}
 */
export function ask({ title, text, action, isDangerous = false, typed = "" }) {
  const confirm = element("button", { class: isDangerous ? "danger" : "main", value: "yes", disabled: Boolean(typed) }, action);
  const input = element("input", {
    type: "text", id: "typed", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    oninput: () => { confirm.disabled = input.value !== typed; },
  });
  const heading = element("h2", { id: "question" }, title);
  const cancel = button("Cancel", () => dialog.close(""));
  if (!typed) cancel.autofocus = true;
  const dialog = element(
    "dialog",
    { class: "question", "aria-labelledby": "question" },
    element(
      "form",
      { method: "dialog" },
      heading,
      element("p", {}, ...text),
      typed && element("label", { for: "typed" }, "To confirm, type the name: ", element("code", {}, typed)),
      typed && input,
      element("div", { class: "row end" }, cancel, confirm),
    ),
  );
  document.body.append(dialog);
  dialog.showModal(); // the browser puts the focus back when it closes
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
