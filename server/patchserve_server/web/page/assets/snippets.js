// Lines for a shell and for Python that do what the page just did. Every name is quoted: it may contain anything.

import { button, element, replace } from "./elements.js";

/**
 * @typedef {object} Request
 * @property {string} url of the HTTP face, such as "http://127.0.0.1:8080"
 * @property {string} grpcAddress HOST:PORT
 * @property {boolean} isTls of both faces
 * @property {boolean} isTokenNeeded
 * @property {string} referenceId
 * @property {string} fileName
 */

/** A text as one word of a POSIX shell. @param {string} text */
export const shellWord = (text) => (/^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** A text as a literal of Python: JSON's are. @param {string} text */
const pythonText = (text) => JSON.stringify(text);

/** @param {Request} request */
export function curlLine({ url, isTokenNeeded, referenceId, fileName }) {
  const part = `image=@"${fileName.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`; // curl's own quotes: for ; and ,
  const token = isTokenNeeded ? '-H "Authorization: Bearer $PATCHSERVE_TOKEN" ' : "";
  return `curl ${token}-F ${shellWord(part)} ${shellWord(`${url}/v1/references/${encodeURIComponent(referenceId)}:infer`)}`;
}

/** @param {Request} request */
export function grpcurlLine({ grpcAddress, isTls, isTokenNeeded, referenceId, fileName }) {
  const file = fileName.startsWith("-") ? `./${fileName}` : fileName;
  const token = isTokenNeeded ? '-H "authorization: Bearer $PATCHSERVE_TOKEN" ' : "";
  const message = `printf '{"reference_id": "%s", "image": "%s"}' ${shellWord(referenceId)} "$(base64 < ${shellWord(file)} | tr -d '\\n')"`;
  return `${message} | grpcurl ${isTls ? "" : "-plaintext "}${token}-d @ ${shellWord(grpcAddress)} patchserve.v1.PatchCoreService/Infer`;
}

/** @param {Request} request */
export function pythonLines({ grpcAddress, isTls, isTokenNeeded, referenceId, fileName }) {
  const options = [pythonText(grpcAddress), isTls && "tls=TlsConfig()", isTokenNeeded && 'token=os.environ["PATCHSERVE_TOKEN"]'];
  return [
    isTokenNeeded && "import os",
    `from patchserve_client import Client${isTls ? ", TlsConfig" : ""}`,
    "",
    `with Client(${options.filter(Boolean).join(", ")}) as client:`,
    `    print(client.infer(${pythonText(fileName)}, reference_id=${pythonText(referenceId)}))`,
  ].filter((line) => line !== false).join("\n");
}

/** Where gRPC is, as this browser's machine can reach it. @param {any} info of the server */
export function grpcAddress(info) {
  const address = info.grpc_address ?? "";
  const isEverywhere = /^(0\.0\.0\.0|\[::\]):/.test(address);
  return isEverywhere ? `${location.hostname}:${address.replace(/.*:/, "")}` : address;
}

const LANGUAGES = { curl: curlLine, grpcurl: grpcurlLine, Python: pythonLines };

/** The lines, with a choice of the language and a button that copies them. @param {Request} request */
export function snippetView(request) {
  const code = element("code", {});
  const copy = button("Copy", copyIt);
  const choices = Object.keys(LANGUAGES).map((name) =>
    element("label", { class: "choice" }, element("input", { type: "radio", name: "language", value: name, onchange: () => show(name) }), name));

  function show(name) {
    code.textContent = LANGUAGES[name](request);
    copy.textContent = "Copy";
  }

  async function copyIt() {
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      copy.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(code); // without HTTPS: people copy it themselves
      copy.textContent = "Selected: press Ctrl+C";
    }
  }

  replace(code);
  show("curl");
  choices[0].querySelector("input").checked = true;
  return element(
    "details",
    { class: "card snippet" },
    element("summary", {}, "The same from a program"),
    element("div", { class: "stack tight" },
      element("div", { class: "row between" }, element("div", { class: "choices", role: "radiogroup", "aria-label": "Language" }, ...choices), copy),
      element("pre", { tabindex: 0, "aria-label": "Code" }, code),
      request.isTokenNeeded && element("p", { class: "small quiet-text" }, "Set PATCHSERVE_TOKEN to your token first.")),
  );
}
