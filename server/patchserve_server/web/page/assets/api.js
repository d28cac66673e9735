// Calls the JSON of the contract, /v1, as every other caller may.

/** Sentences for people where the server's own are for programs. */
const SENTENCES = {
  REFERENCE_NOT_FOUND: "The server no longer has this reference: it was deleted, or the server has restarted and keeps none. "
    + "Reload the page to see those that there are.",
};

/** A failed call. The message is a sentence to show. */
export class ApiError extends Error {
  /**
   * @param {number} status of HTTP; 0: no answer
   * @param {{code?: number, message?: string, details?: any[]}} body a google.rpc.Status
   */
  constructor(status, body) {
    const details = body.details ?? [];
    const reason = details.find((detail) => detail.reason)?.reason ?? "";
    super(SENTENCES[reason] || body.message || `The server answered with the HTTP code ${status}.`);
    this.name = "ApiError";
    this.status = status;
    this.code = body.code ?? 0;
    this.details = details;
    this.reason = reason;
  }

  /** No token, or not a valid one. */
  get needsToken() {
    return this.status === 401;
  }

  /** Somebody else changed the reference in the meantime. */
  get isChange() {
    return this.reason === "REVISION_MISMATCH" || this.reason === "REFERENCE_CHANGED";
  }

  get noConnection() {
    return this.status === 0;
  }
}

/** Told about every answer: an error, or null. */
const listeners = new Set();

/** @param {(error: ApiError | null) => void} listener */
export function onAnswer(listener) {
  listeners.add(listener);
}

/**
 * One call.
 * @param {string} method of HTTP
 * @param {string} path with its query
 * @param {{json?: object, form?: FormData, signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the JSON of the answer
 * @throws {ApiError} the call failed; {DOMException} AbortError: `signal` ended it
 */
export async function call(method, path, options = {}) {
  const response = await send(method, path, options);
  if (response.ok) return response.json();
  throw tell(new ApiError(response.status, await response.json().catch(() => ({}))));
}

/**
 * One call whose answer is not JSON, such as an image.
 * @param {string} path with its query
 * @param {{headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>}
 * @throws as `call`
 */
export async function open(path, options = {}) {
  const response = await send("GET", path, options);
  if (response.ok) return response;
  throw tell(new ApiError(response.status, await response.json().catch(() => ({}))));
}

async function send(method, path, { json, form, signal, headers: more = {} }) {
  const headers = json === undefined ? more : { ...more, "content-type": "application/json" };
  const body = json === undefined ? form : JSON.stringify(json);
  try {
    const response = await fetch(path, { method, headers, body, signal, credentials: "same-origin" });
    if (response.ok) tell(null);
    return response;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw tell(new ApiError(0, { message: "There is no connection to the server." }));
  }
}

function tell(error) {
  for (const listener of listeners) listener(error);
  return error;
}

/**
 * The path of a reference.
 * @param {string} referenceId
 * @param {string} [rest] such as ":infer" or "/images/0"
 */
export function referencePath(referenceId, rest = "") {
  return `/v1/references/${encodeURIComponent(referenceId)}${rest}`;
}
