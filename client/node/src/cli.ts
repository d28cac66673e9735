#!/usr/bin/env node
// patchserve-node: load a reference, inspect images, stream a folder.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { parseArgs } from "node:util";
import { PatchserveClient, PatchserveError, ScoringProfile, type InferResponse } from "./client.js";
import { conformance } from "./conformance.js";
import { soak } from "./soak.js";

const USAGE = `patchserve-node [options] load FOLDER        build a reference from the images in FOLDER
patchserve-node [options] infer IMAGE        inspect one image; --overlay FILE: write the heat map over the image
patchserve-node [options] stream FOLDER      inspect all images in FOLDER in one stream; --overlay FOLDER: overlays
patchserve-node [options] soak               call until SIGTERM: --images FOLDER, see tests/conformance
patchserve-node [options] conformance        run test cases: --cases FILE --images FOLDER, see tests/conformance

--help   --server HOST:PORT (localhost:50051)   --reference ID (default)   --timeout SECONDS (30)
--tls   --ca FILE   --cert FILE --key FILE   --token TOKEN (or PATCHSERVE_TOKEN)   --insecure-token`;

const IMAGES = new Set([".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]);

const text = { type: "string" } as const;
const { values, positionals } = parsed();
const [command, path] = positionals;
const { ca, cert, key, overlay, reference, server, token } = values;
const tls = values.tls || ca || cert ? { ca, cert, key } : undefined;
const timeoutMs = Number(values.timeout) * 1000;
if (!(timeoutMs > 0)) wrongUsage(`--timeout must be a number of seconds above 0, not ${values.timeout}.`);
const options = { tls, token, insecureToken: values["insecure-token"], timeoutMs };

try {
  if (values.help) {
    console.log(USAGE);
  } else if (command === "conformance" && values.cases && values.images) {
    await conformance(server, options, values.cases, values.images);
  } else if (command === "soak" && values.images) {
    const images = names(values.images).map((name) => readFileSync(join(values.images!, name)));
    await soak(server, options, reference, images, values.rounds === undefined ? Infinity : Number(values.rounds));
  } else if (path !== undefined && (command === "load" || command === "infer" || command === "stream")) {
    const client = new PatchserveClient(server, options);
    await { load, infer, stream }[command](client, path);
    client.close();
  } else {
    console.error(USAGE);
    process.exitCode = 2;
  }
} catch (error) {
  console.error(error instanceof PatchserveError ? described(error) : (error as Error).message);
  process.exitCode = 1;
}

function parsed() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        server: { ...text, default: "localhost:50051" },
        reference: { ...text, default: "default" },
        timeout: { ...text, default: "30" },
        overlay: text,
        tls: { type: "boolean" },
        ca: text,
        cert: text,
        key: text,
        token: { ...text, default: process.env.PATCHSERVE_TOKEN },
        "insecure-token": { type: "boolean" },
        cases: text,
        images: text,
        rounds: text,
      },
    });
  } catch (error) {
    return wrongUsage((error as Error).message);
  }
}

function wrongUsage(problem: string): never {
  console.error(`${problem} See --help.`);
  process.exit(2);
}

function described({ code, reason, message }: PatchserveError): string {
  return `${[code, reason].filter(Boolean).join(" ")}: ${message}`;
}

function names(folder: string): string[] {
  return readdirSync(folder).filter((name) => IMAGES.has(extname(name).toLowerCase())).sort();
}

async function load(client: PatchserveClient, folder: string) {
  function* images() {
    for (const name of names(folder)) yield readFileSync(join(folder, name));
  }
  const loaded = await client.loadReference(images(), { referenceId: reference, profile: ScoringProfile.VERDICT });
  console.log(`${loaded.referenceId}: ${loaded.imageCount} images, revision ${loaded.revision}`);
}

/** Says how many times the threshold the image reaches, rounded on the side of the verdict. */
function verdict(name: string, { anomaly }: InferResponse): string {
  const ratio = anomaly!.rawScore / anomaly!.rawThreshold;
  return anomaly!.isAnomalous
    ? `${name}: anomalous ${Math.max(ratio, 1.01).toFixed(2)} x`
    : `${name}: intact ${Math.min(ratio, 1).toFixed(2)} x`;
}

async function infer(client: PatchserveClient, image: string) {
  const output = { overlay: overlay !== undefined };
  const found = await client.infer({ referenceId: reference, image: readFileSync(image), output });
  if (overlay !== undefined) writeFileSync(overlay, found.overlayPng);
  console.log(verdict(image, found));
}

async function stream(client: PatchserveClient, folder: string) {
  function* frames() {
    for (const frameId of names(folder)) yield { frameId, image: readFileSync(join(folder, frameId)) };
  }
  for await (const { case: kind, value } of client.inferStream(frames(), { referenceId: reference, output: { overlay: overlay !== undefined } })) {
    if (kind === "notice") console.error(value.message);
    if (kind !== "result") continue;
    const { frameId, outcome } = value;
    if (outcome.case === "response") {
      if (overlay !== undefined) writeFileSync(join(overlay, `${frameId}.png`), outcome.value.overlayPng);
      console.log(verdict(frameId, outcome.value));
    } else if (outcome.case === "error") {
      console.log(`${frameId}: ${described(PatchserveError.fromStatus(outcome.value))}`);
    }
  }
}
