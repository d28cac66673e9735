// The frame of the page: navigation between the screens, the session, the state of the connection.

import { call, onAnswer } from "./api.js";
import { button, element, notice, replace } from "./elements.js";
import * as reference from "./reference.js";
import { askForToken, readSession, signOut } from "./session.js";
import * as tryIt from "./try_it.js";
import * as watch from "./watch.js";

/**
 * What a screen gets of the frame.
 * @typedef {object} App
 * @property {any} info the server, as GetServerInfo describes it
 * @property {import("./session.js").Session} session
 * @property {(scope: "infer" | "manage") => boolean} can whether this person may do what needs the scope
 * @property {string[]} path the parts of the address after the name of the screen
 * @property {(hash: string) => void} go opens another screen, such as "#/reference/belt"
 * @property {(text: string) => void} say tells people with a screen reader what happened
 */

const SCREENS = {
  try: { title: "Try it", show: tryIt.show },
  watch: { title: "Watch", show: watch.show },
  reference: { title: "Reference", show: reference.show },
};
const RETRY_MS = 2000;
const SERVICE_UNAVAILABLE = 503;

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const screens = /** @type {HTMLElement} */ (document.getElementById("screens"));
const connection = /** @type {HTMLElement} */ (document.getElementById("connection"));
const account = /** @type {HTMLElement} */ (document.getElementById("account"));

let leave = () => {};
let info = null;
let session = null;
let asking = false;
let isStarting = false;

/** The reference that the last screen showed: the next screen opens with it. */
let lastReferenceId = "";

/** @returns {{name: keyof typeof SCREENS, path: string[]}} */
function route() {
  const [name, ...path] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  if (name in SCREENS) return { name: /** @type {keyof typeof SCREENS} */ (name), path };
  return { name: "try", path: [] };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function showScreen() {
  const { name, path } = route();
  leave();
  leave = () => {};
  if (name !== "watch" && path[0]) lastReferenceId = path[0];
  drawNavigation(name);
  document.title = `${SCREENS[name].title} · patchserve`;
  const app = { info, session, can: (scope) => session.scopes.includes(scope), path, go, say };
  replace(main);
  leave = SCREENS[name].show(main, app) ?? leave;
}

function drawNavigation(current) {
  const links = Object.entries(SCREENS).map(([name, screen]) => {
    const id = name === "watch" || !lastReferenceId ? "" : `/${encodeURIComponent(lastReferenceId)}`;
    return element("a", { href: `#/${name}${id}`, "aria-current": name === current ? "page" : null }, screen.title);
  });
  replace(screens, ...links);
}

function go(hash) {
  if (location.hash === hash) showScreen();
  else location.hash = hash;
}

function say(text) {
  /** @type {HTMLElement} */ (document.getElementById("said")).textContent = text;
}

function drawFrame() {
  const parts = [`patchserve ${info.version}`, info.backbone, info.precision, info.device,
    info.decode === "device" && "JPEGs decoded on it"];
  replace(document.getElementById("server"), parts.filter(Boolean).join(" · "));
  replace(
    account,
    session.isTokenNeeded && element("span", { class: "small quiet-text who" }, `${session.name}: ${session.scopes.join(", ")}`),
    session.isTokenNeeded && button("Sign out", leaveSession, { class: "quiet" }),
  );
}

async function leaveSession() {
  await signOut();
  location.reload();
}

/** Reads who this person is and what the server is; asks for a token first, where one is needed. */
async function start() {
  isStarting = true;
  try {
    session = await readSession();
    if (session.isTokenNeeded && !session.isSignedIn) session = await askForToken(session.problem);
    info = await call("GET", "/v1/server");
  } catch (error) {
    replace(main, notice("bad", error.message), session?.isSignedIn && button("Sign out", leaveSession));
    if (error.status === SERVICE_UNAVAILABLE) setTimeout(start, RETRY_MS); // it starts, or is replaced
    return;
  } finally {
    isStarting = false;
  }
  drawFrame();
  window.addEventListener("hashchange", () => {
    showScreen();
    main.focus();
  });
  showScreen();
}

/** After a token has expired: ask for another and draw the screen again. */
async function signInAgain() {
  if (asking || info === null) return;
  asking = true;
  session = await askForToken("Your token has expired, or is no longer valid.");
  asking = false;
  drawFrame();
  showScreen();
}

let retry = 0;

onAnswer((error) => {
  if (error?.needsToken && session?.isTokenNeeded) void signInAgain();
  const isLost = error?.noConnection ?? false;
  connection.hidden = !isLost;
  connection.textContent = isLost ? "There is no connection to the server. Trying again…" : "";
  clearTimeout(retry);
  if (isLost) retry = setTimeout(lookAgain, RETRY_MS);
});

async function lookAgain() {
  if (info === null && !isStarting) await start(); // else a dialog asks for a token
  else await call("GET", "/health").catch(() => {});
}

// A link to #main would be taken for the address of a screen.
document.getElementById("skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

void start();
