// A load generator for tests of a fleet. tests/conformance/README.md says what it does and prints.
import { setTimeout as sleep } from "node:timers/promises";
import { type ClientOptions, PatchserveClient, PatchserveError } from "./client.js";

const PAUSE_MS = 20;
const LOAD_PAUSE_MS = 500;
const RESUME_FOR_MS = 60_000;
const MOST_FAILURES = 10;
const OWN_ID = "soak-node";

class Counts {
  private readonly calls: Record<string, { ok: number; failed: number }> = {};
  private readonly failures: string[] = [];
  private isStarted = false;

  constructor(kinds: string[]) {
    for (const kind of kinds) this.calls[kind] = { ok: 0, failed: 0 };
  }

  ok(kind: string): void {
    this.calls[kind]!.ok++;
    if (this.isStarted || Object.values(this.calls).some(({ ok }) => ok === 0)) return;
    this.isStarted = true;
    console.log(JSON.stringify({ started: true }));
  }

  failed(kind: string, error: unknown): void {
    this.calls[kind]!.failed++;
    const text = error instanceof PatchserveError ? `${error.code} ${error.reason}: ${error.message}` : String(error);
    if (this.failures.length < MOST_FAILURES) this.failures.push(`${kind}: ${text}`);
  }

  print(): void {
    console.log(JSON.stringify({ language: "node", calls: this.calls, failures: this.failures }));
  }
}

export async function soak(
  server: string,
  options: ClientOptions,
  referenceId: string,
  images: Uint8Array[],
  rounds: number,
): Promise<void> {
  if (images.length === 0) throw new Error("The folder of --images has no images.");
  const client = new PatchserveClient(server, options);
  const stop = new AbortController();
  process.once("SIGTERM", () => stop.abort());
  const pause = (ms: number) => sleep(ms, undefined, { signal: stop.signal }).catch(() => {});
  const image = (round: number) => images[round % images.length]!;

  const singles: Record<string, (round: number) => Promise<unknown>> = {
    Infer: (round) => client.infer({ referenceId, image: image(round) }),
    GetReference: () => client.getReference(referenceId),
    ListReferences: async () => {
      for await (const _ of client.listReferences());
    },
    GetServerInfo: () => client.serverInfo(),
    LoadReference: async (round) => {
      const { revision } = await client.loadReference([image(round)], { referenceId: OWN_ID });
      const found = await client.infer({ referenceId: OWN_ID, image: image(round) });
      if (found.referenceRevision !== revision) throw new Error(`${found.referenceRevision} answered, not ${revision}`);
    },
  };
  const counts = new Counts([...Object.keys(singles), "InferStream"]);

  async function repeat(kind: string, call: (round: number) => Promise<unknown>): Promise<void> {
    for (let round = 0; round < rounds && !stop.signal.aborted; round++) {
      await call(round).then(() => counts.ok(kind), (error: unknown) => counts.failed(kind, error));
      await pause(kind === "LoadReference" && rounds === Infinity ? LOAD_PAUSE_MS : PAUSE_MS);
    }
  }

  let sent = 0;
  async function* frames() {
    for (; sent < rounds && !stop.signal.aborted; sent++) {
      yield { frameId: String(sent), image: image(sent) };
      await pause(PAUSE_MS);
    }
  }

  async function stream(): Promise<void> {
    let expected = 0;
    try {
      for await (const { case: kind, value } of client.inferStream(frames(), { referenceId }, { resumeForMs: RESUME_FOR_MS })) {
        if (kind !== "result") continue;
        const isRight = value.frameId === String(expected) && value.sequence === BigInt(expected);
        if (isRight && value.outcome.case === "response") counts.ok("InferStream");
        else counts.failed("InferStream", `frame ${value.frameId} as ${value.sequence}, ${value.outcome.case}, for ${expected}`);
        expected++;
      }
      if (expected !== sent) counts.failed("InferStream", `${expected} results for ${sent} frames`);
    } catch (error) {
      counts.failed("InferStream", error);
    }
  }

  await Promise.all([stream(), ...Object.entries(singles).map(([kind, call]) => repeat(kind, call))]);
  counts.print();
  client.close();
}
