// The screen Watch: what the server inspects now, of all callers and streams.

import { listReferences } from "./contract.js";
import { button, element, notice, replace, setText } from "./elements.js";
import { FalseAlarms } from "./false_alarms.js";
import { scoreChart } from "./score_chart.js";
import { lookAt, MEANING } from "./tile_view.js";
import { listen } from "./wall_events.js";
import { WallState } from "./wall_state.js";
import { anomalyCard, bringUpToDate, gridTile, tileName, timeText } from "./wall_tiles.js";
import { counted, millisecondsText, ratioText } from "./words.js";

const DRAW_EVERY_MS = 500;
const CHARTS = 4;
const GRID = 24;
const CARD_PX = 100; // less than a card
const SAY_EVERY_MS = 6000;
const STATES = { connecting: "Connecting…", live: "Live", lost: "No connection", refused: "Not watching" };

/** @param {HTMLElement} root @param {import("./app.js").App} app */
export function show(root, app) {
  if (!app.can("manage")) {
    const text = "The wall shows what other callers send. For that you need a token with the scope manage.";
    replace(root, element("h1", {}, "Watch"), notice("info", text));
    return () => {};
  }
  const wall = new Wall(root, app);
  return () => wall.leave();
}

class Wall {
  #app;
  #referenceId;
  #state = new WallState();
  #isPaused = false;
  #onlyAnomalous = false;
  #unseen = 0; // images since the pause
  #saidMs = 0;
  #connection = { state: "connecting", message: "" };
  #charts = new Map();
  #cards = new Map();
  #grid = new Map();
  #alarms;
  #parts;
  #stop;
  #timer;

  constructor(root, app) {
    this.#app = app;
    this.#referenceId = app.path[0] ?? "";
    this.#parts = build(this.#referenceId, {
      choose: (id) => app.go(id ? `#/watch/${encodeURIComponent(id)}` : "#/watch"),
      pause: () => this.#pause(),
      filter: (onlyAnomalous) => { this.#onlyAnomalous = onlyAnomalous; this.#drawTiles(); },
    });
    replace(root, ...this.#parts.all);
    this.#alarms = new FalseAlarms(this.#parts.reports, this.#state, app.say, () => this.#drawCards());
    void this.#listReferences();
    const path = this.#referenceId ? `/watch/events?reference_id=${encodeURIComponent(this.#referenceId)}` : "/watch/events";
    this.#stop = listen(path, (name, data) => this.#hear(name, data), (connection) => this.#setConnection(connection));
    this.#timer = setInterval(() => this.#draw(), DRAW_EVERY_MS);
  }

  leave() {
    this.#stop();
    clearInterval(this.#timer);
    this.#state.clear();
  }

  #hear(name, data) {
    if (name === "snapshot") this.#state.begin(data);
    if (name !== "update") return;
    const anomalies = this.#state.update(data);
    this.#unseen += data.inspected;
    this.#alarms.referencesChanged();
    this.#announce(anomalies);
  }

  #announce(anomalies) {
    if (!anomalies.length || this.#isPaused || Date.now() < this.#saidMs + SAY_EVERY_MS) return;
    this.#saidMs = Date.now();
    const last = anomalies[anomalies.length - 1];
    this.#app.say(`Anomalous: ${tileName(last)}, ${ratioText(last.ratio)} the threshold of ${last.referenceId}.`);
  }

  #setConnection(connection) {
    if (connection.state === this.#connection.state && connection.message === this.#connection.message) return;
    this.#connection = connection;
    this.#drawState();
  }

  #pause() {
    this.#isPaused = !this.#isPaused;
    this.#unseen = 0;
    const { pause } = this.#parts;
    pause.setAttribute("aria-pressed", String(this.#isPaused));
    pause.textContent = this.#isPaused ? "Continue" : "Pause";
    this.#drawState();
    this.#draw();
  }

  #draw() {
    if (document.hidden) return;
    this.#drawState();
    if (this.#isPaused) return;
    this.#drawNumbers();
    this.#drawCharts();
    this.#drawTiles();
  }

  #drawState() {
    const { state, message } = this.#connection;
    const { status, messages } = this.#parts;
    const isLive = state === "live";
    status.className = `wall-status ${isLive && !this.#isPaused ? "live" : ""}`;
    setText(status, isLive && this.#isPaused ? `Paused, ${counted(this.#unseen, "image")} since` : STATES[state]);
    const texts = [message];
    if (isLive && this.#state.missed) texts.push(`While there was no connection, ${counted(this.#state.missed, "image")} came.`);
    if (this.#state.notShown) texts.push(`${counted(this.#state.notShown, "image")} came too fast to be shown.`);
    if (this.#state.refused) texts.push(`${counted(this.#state.refused, "image")} refused: the server had no capacity for them.`);
    const text = texts.filter(Boolean).join(" ");
    if (messages.textContent !== text) replace(messages, text && notice(isLive ? "info" : "bad", text));
  }

  #drawNumbers() {
    const { perSecond, images, anomalous, medianMs, p95Ms } = this.#state.numbers();
    const { numbers } = this.#parts;
    setText(numbers.rate, perSecond < 10 ? perSecond.toFixed(1) : perSecond.toFixed(0));
    setText(numbers.anomalous, images ? `${anomalous} of ${images}` : "–");
    setText(numbers.median, medianMs === null ? "–" : millisecondsText(medianMs));
    setText(numbers.p95, p95Ms === null ? "–" : millisecondsText(p95Ms));
  }

  #drawCharts() {
    const { references } = this.#state;
    const lastMs = (reference) => reference.points[reference.points.length - 1]?.timeMs ?? 0;
    const shown = [...references.values()].filter((each) => each.points.length || each.id === this.#referenceId)
      .filter((each) => !this.#referenceId || each.id === this.#referenceId)
      .sort((a, b) => lastMs(b) - lastMs(a)).slice(0, CHARTS).map((each) => each.id);
    for (const [id, chart] of this.#charts) {
      if (shown.includes(id)) continue;
      chart.node.remove();
      this.#charts.delete(id);
    }
    for (const id of shown) {
      if (!this.#charts.has(id)) {
        const chart = scoreChart(id, this.#referenceId ? null : () => this.#app.go(`#/watch/${encodeURIComponent(id)}`));
        this.#charts.set(id, chart);
        this.#parts.charts.append(chart.node); // a chart keeps its place, so that the eye finds it again
      }
      this.#charts.get(id).draw(references.get(id), this.#state.now());
    }
    this.#parts.empty.hidden = shown.length > 0;
  }

  #drawTiles() {
    const { anomalies, tiles } = this.#state;
    const { cards, cardsHeld, grid, gridHeld } = this.#parts;
    const seen = this.#onlyAnomalous ? tiles.filter((tile) => tile.isAnomalous) : tiles.filter((tile) => tile.url || tile.isAnomalous);
    cardsHeld.hidden = !isInUse(cards);
    if (cardsHeld.hidden) {
      const isAtTheNewest = cards.scrollLeft < CARD_PX;
      bringUpToDate(cards, anomalies, this.#cards, (tile) => anomalyCard(tile, {
        look: () => this.#look(tile), fine: () => void this.#alarms.add(tile),
      }));
      if (isAtTheNewest) cards.scrollLeft = 0; // browsers keep in sight what was there before
    }
    this.#drawCards();
    gridHeld.hidden = !isInUse(grid);
    if (gridHeld.hidden) {
      bringUpToDate(grid, seen.slice(0, GRID), this.#grid, (tile) => ({ node: gridTile(tile, () => this.#look(tile)) }));
    }
    setText(this.#parts.anomalyCount, anomalies.length ? String(anomalies.length) : "none yet");
    this.#parts.meaning.hidden = anomalies.length === 0;
    this.#drawFailures();
  }

  #drawCards() {
    for (const card of this.#cards.values()) card.draw(this.#alarms.isBusy);
  }

  #drawFailures() {
    const { failures, failed } = this.#state;
    const { failedList, failedTitle, failedBox } = this.#parts;
    failedBox.hidden = failed === 0;
    setText(failedTitle, `${counted(failed, "image")} could not be inspected`);
    replace(failedList, ...failures.map((each) => element("li", {},
      element("strong", {}, each.name || "image without a name"), ` (${each.referenceId}, ${each.client}, ${timeText(each.timeMs)}): ${each.message}`)));
  }

  #look(tile) {
    lookAt(tile, this.#alarms.isBusy || !tile.isKept ? null : () => void this.#alarms.add(tile));
  }

  async #listReferences() {
    const ids = (await listReferences().catch(() => [])).map((reference) => reference.id);
    if (this.#referenceId && !ids.includes(this.#referenceId)) ids.push(this.#referenceId);
    const options = ids.map((id) => element("option", { value: id, selected: id === this.#referenceId }, id));
    replace(this.#parts.references, element("option", { value: "" }, "All references"), ...options);
  }
}

/** Whether somebody points at it, or is in it with the keyboard: then nothing must move there. */
function isInUse(list) {
  return list.matches(":has(:focus-visible)") || (matchMedia("(hover: hover)").matches && list.matches(":hover"));
}

/** The elements of the screen. */
function build(referenceId, { choose, pause, filter }) {
  const status = element("p", { class: "wall-status", role: "status" }, STATES.connecting);
  const references = element("select", { id: "wall-reference", onchange: () => choose(references.value) },
    element("option", { value: referenceId }, referenceId || "All references"));
  const only = element("input", { type: "checkbox", onchange: () => filter(only.checked) });
  const pauseButton = button("Pause", pause, { "aria-pressed": "false" });
  const messages = element("div", {});
  const number = (name) => {
    const value = element("dd", {}, "–");
    return { node: element("div", {}, element("dt", {}, name), value), value };
  };
  const [rate, anomalous, median, p95] = ["Images a second", "Anomalous, last minute", "Median time", "95 % within"].map(number);
  const anomalyCount = element("span", { class: "quiet-text" });
  const meaning = element("p", { id: "wall-meaning", class: "quiet-text" },
    element("strong", {}, "A false alarm? "), "Press ", element("em", {}, "This is fine"), ". ", MEANING);
  const reports = element("ol", { class: "wall-reports", "aria-label": "Changes of references" });
  const cards = element("ul", { class: "wall-cards" });
  const [cardsHeld, gridHeld] = [0, 1].map(() => element("span", { class: "wall-held", hidden: true }, "holds still while you point at it"));
  const charts = element("div", { class: "wall-charts" });
  const empty = element("div", { class: "card empty" },
    element("p", {}, "Nothing has been inspected in the last five minutes."),
    element("p", { class: "quiet-text small" }, "Images appear here as soon as a caller sends one."));
  const grid = element("ul", { class: "wall-grid" });
  const failedTitle = element("summary", {});
  const failedList = element("ul", { class: "small" });
  const failedBox = element("details", { class: "card wall-failed", hidden: true }, failedTitle, failedList);
  const all = [
    element("div", { class: "row between wall-head" },
      element("div", { class: "row" }, element("h1", {}, "Watch"), status),
      element("div", { class: "row wall-controls" },
        element("label", { for: "wall-reference", class: "visually-hidden" }, "Reference"), references,
        element("label", { class: "check" }, only, "Anomalous only"), pauseButton)),
    messages,
    element("dl", { class: "wall-numbers" }, rate.node, anomalous.node, median.node, p95.node),
    element("section", { class: "wall-part", "aria-label": "Anomalies" },
      element("div", { class: "row between" }, element("h2", {}, "Anomalies ", anomalyCount), cardsHeld),
      meaning, reports, cards),
    element("div", { class: "wall-columns" },
      element("section", { class: "wall-part", "aria-label": "Scores" }, element("h2", {}, "Scores"), empty, charts),
      element("section", { class: "wall-part", "aria-label": "Now" }, element("div", { class: "row between" }, element("h2", {}, "Now"), gridHeld), grid)),
    failedBox,
  ];
  return {
    all, status, messages, references, pause: pauseButton, anomalyCount, meaning, cardsHeld, gridHeld, reports, cards, charts, empty, grid, failedBox, failedTitle, failedList,
    numbers: { rate: rate.value, anomalous: anomalous.value, median: median.value, p95: p95.value },
  };
}
