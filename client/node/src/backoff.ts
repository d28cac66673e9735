// When a stream connects again after its connection is lost, and when it stops trying.
import { type PatchserveError } from "./errors.js";

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 2_000;

/** Growing delays between connections, for at most `resumeForMs` without progress. 0: the stream is never resumed. */
export class Backoff {
  private lostAtMs: number | undefined;
  private nextDelayMs = FIRST_DELAY_MS;

  constructor(
    readonly resumeForMs: number,
    private readonly now: () => number = () => performance.now(),
  ) {
    if (!(resumeForMs >= 0)) throw new RangeError(`resumeForMs must be 0 or more, not ${resumeForMs}.`);
  }

  /** The stream made progress: start again with a short delay and the full time. */
  reset(): void {
    this.lostAtMs = undefined;
    this.nextDelayMs = FIRST_DELAY_MS;
  }

  /** How long to wait before the next connection, at least as long as the server asks for; undefined: the error is
   * final, or the time passes before. */
  delayMs(error: PatchserveError): number | undefined {
    this.lostAtMs ??= this.now();
    const remainingMs = this.lostAtMs + this.resumeForMs - this.now();
    const toldMs = error.retryAfterMs ?? 0;
    if (remainingMs <= 0 || toldMs > remainingMs || !isConnectionLoss(error)) return undefined;
    const share = 0.75 + Math.random() / 2; // the streams of a server do not all come at once
    const delayMs = Math.max(this.nextDelayMs * share, toldMs * Math.max(share, 1));
    this.nextDelayMs = Math.min(2 * this.nextDelayMs, LONGEST_DELAY_MS);
    return Math.min(remainingMs, delayMs);
  }
}

/** A proxy that has lost the server resets the stream; a server that stops discards calls unread. Both give no reason. */
function isConnectionLoss({ code, reason, retryAfterMs }: PatchserveError): boolean {
  const isReset = ["CANCELLED", "INTERNAL", "UNKNOWN"].includes(code) && reason === "";
  return isReset || code === "UNAVAILABLE" || retryAfterMs !== undefined;
}
