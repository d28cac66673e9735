// Server-sent events of the wall, over fetch: unlike EventSource, it can show why the server refuses.

import { ApiError, open } from "./api.js";

const RETRY_MS = 2000;

/**
 * @typedef {object} Connection
 * @property {"connecting" | "live" | "lost" | "refused"} state
 * @property {string} message a sentence to show; "": nothing to say
 */

/**
 * Listens until it is stopped, and connects again by itself.
 * @param {string} path
 * @param {(name: string, data: any) => void} onEvent
 * @param {(connection: Connection) => void} onChange
 * @returns {() => void} stops it
 */
export function listen(path, onEvent, onChange) {
  const stop = new AbortController();
  void run(path, onEvent, onChange, stop.signal);
  return () => stop.abort();
}

async function run(path, onEvent, onChange, signal) {
  let lastId = "";
  onChange({ state: "connecting", message: "" });
  while (!signal.aborted) {
    let error = new ApiError(0, { message: "The connection to the server is lost. Trying again…" });
    try {
      const headers = lastId ? { "last-event-id": lastId } : {};
      const { body } = await open(path, { headers, signal });
      for await (const event of eventsOf(body)) {
        lastId = event.id || lastId;
        if (event.name === "error") throw new ApiError(503, event.data);
        onEvent(event.name, event.data);
        onChange({ state: "live", message: "" });
      }
    } catch (caught) {
      if (signal.aborted) return;
      if (caught instanceof ApiError && !caught.noConnection) error = caught;
    }
    const isFinal = error.status === 401 || error.status === 403 || error.status === 400;
    onChange({ state: error.noConnection ? "lost" : "refused", message: error.message });
    if (isFinal) return;
    await pause(retryAfterMs(error), signal);
  }
}

/** @param {ApiError} error */
function retryAfterMs(error) {
  const delay = error.details.find((detail) => detail.retry_delay)?.retry_delay;
  return delay ? Math.max(RETRY_MS, 1000 * Number.parseFloat(delay)) : RETRY_MS;
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(undefined); }, { once: true });
  });
}

/** The events of a body: an event ends with an empty line. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const event = eventOf(part);
        if (event.data !== null) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function eventOf(part) {
  const fields = { id: "", event: "", data: "" };
  for (const line of part.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name in fields) fields[name] += value;
  }
  return { id: fields.id, name: fields.event, data: fields.data ? JSON.parse(fields.data) : null };
}
