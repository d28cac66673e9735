// Who looks at the page: the session, and the dialog that asks for a token.

import { ApiError, call } from "./api.js";
import { element, notice, replace } from "./elements.js";

/**
 * @typedef {object} Session
 * @property {boolean} isTokenNeeded whether the server wants one
 * @property {boolean} isSignedIn
 * @property {string} name of the token's owner
 * @property {string[]} scopes what this person may do
 * @property {string} problem why the token of this session no longer counts
 */

/** @returns {Promise<Session>} */
export async function readSession() {
  return sessionOf(await call("GET", "/session"));
}

function sessionOf(answer) {
  return {
    isTokenNeeded: answer.token_needed,
    isSignedIn: answer.signed_in,
    name: answer.name ?? "",
    scopes: answer.scopes,
    problem: answer.problem ?? "",
  };
}

/** Forgets the token. */
export async function signOut() {
  await call("DELETE", "/session");
}

/**
 * Asks until the server takes the token. The server keeps it for this session of the browser; the page keeps nothing.
 * @param {string} [reason] why it asks again
 * @returns {Promise<Session>}
 */
export function askForToken(reason = "") {
  const token = element("input", {
    type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false", "aria-describedby": "token-help",
  });
  const problem = element("div", {}, reason && notice("info", reason));
  const form = element(
    "form",
    { method: "dialog" },
    element("h1", {}, "Token"),
    element("p", { id: "token-help" }, "This server needs a token. Ask the person who runs it. ",
      "It is kept until you close the browser or sign out."),
    element("label", { for: "token" }, "Your token"),
    token,
    problem,
    element("button", { class: "main" }, "Sign in"),
  );
  const dialog = element("dialog", { class: "question", "aria-label": "Token" }, form);
  document.body.append(dialog);
  dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing to see without a token
  dialog.showModal();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        const session = sessionOf(await call("POST", "/session", { json: { token: token.value } }));
        dialog.close();
        dialog.remove();
        resolve(session);
      } catch (error) {
        replace(problem, notice("bad", error instanceof ApiError ? error.message : String(error)));
        token.select();
      }
    });
  });
}
