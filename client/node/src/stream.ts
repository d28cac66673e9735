// A stream of frames over several connections: frames without a result are sent again on the next one.
import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { type ClientDuplexStream, type ServiceError } from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";
import { Backoff } from "./backoff.js";
import { type Channel, send } from "./channel.js";
import { PatchserveError } from "./errors.js";
import { PatchCoreService } from "./gen/patchserve/v1/service_pb.js";
import {
  type FrameSchema,
  type InferStreamRequest,
  InferStreamRequestSchema,
  type InferStreamResponse,
  type StreamConfigSchema,
} from "./gen/patchserve/v1/stream_pb.js";
import { type OwnChanges } from "./own-changes.js";

type Frame = MessageInitShape<typeof FrameSchema>;
type Config = MessageInitShape<typeof StreamConfigSchema>;
type Payload = InferStreamResponse["payload"];
type Call = ClientDuplexStream<InferStreamRequest, InferStreamResponse>;
export type Frames = AsyncIterable<Frame> | Iterable<Frame>;

/** A frame and its place in the whole stream. The server counts the frames of one connection. */
type Placed = { place: bigint; frame: Frame };

export class FrameStream {
  private readonly frames: Iterator<Frame> | AsyncIterator<Frame>;
  private readonly referenceId: string;
  private unsent: Placed[] = [];
  private unanswered = new Map<bigint, Placed>(); // by sequence on this connection
  private count = 0n;
  private reading: Promise<void> | undefined; // of the next frame; it may outlive a connection
  private ended = false; // no frame follows
  private framesError: { error: unknown } | undefined; // what `frames` threw
  private pinnedRevision: string; // made by this client a moment ago; asked for until a connection is open

  constructor(
    private readonly channel: Channel,
    frames: Frames,
    private readonly config: Config,
    private readonly backoff: Backoff,
    private readonly own: OwnChanges,
  ) {
    this.frames = Symbol.asyncIterator in frames ? frames[Symbol.asyncIterator]() : frames[Symbol.iterator]();
    this.referenceId = config.referenceId || "default";
    this.pinnedRevision = config.expectedRevision ? "" : own.revisionOf(this.referenceId);
  }

  async *payloads(): AsyncGenerator<Payload> {
    try {
      let delayMs: number | undefined = 0;
      while (delayMs !== undefined) {
        if (delayMs > 0) await sleep(delayMs);
        delayMs = yield* this.connection();
      }
    } finally {
      // Not awaited: a camera may never send its next frame.
      if (!this.ended) Promise.resolve(this.frames.return?.()).catch(() => {});
    }
  }

  /** One connection. Returns how long to wait before the next one; undefined: the stream has ended. */
  private async *connection(): AsyncGenerator<Payload, number | undefined> {
    this.unsent.unshift(...this.unanswered.values());
    this.unanswered = new Map();
    const call = this.channel.openStream(PatchCoreService.method.inferStream, this.referenceId);
    const isOpen = { value: true };
    this.write(call, isOpen).catch((error: unknown) => {
      this.framesError ??= { error }; // such as a frame that no message can carry
      call.cancel();
    });
    try {
      for await (const message of call) yield this.placed((message as InferStreamResponse).payload);
      isOpen.value = false;
      if (this.framesError) throw this.framesError.error;
      return undefined;
    } catch (error) {
      if (this.framesError) throw this.framesError.error;
      return this.delayAfter(PatchserveError.fromCall(error as ServiceError));
    } finally {
      isOpen.value = false;
      call.cancel();
    }
  }

  private async write(call: Call, isOpen: { value: boolean }): Promise<void> {
    const config = this.pinnedRevision ? { ...this.config, expectedRevision: this.pinnedRevision } : this.config;
    await send(call, create(InferStreamRequestSchema, { payload: { case: "config", value: config } }));
    let sequence = 0n;
    while (isOpen.value) {
      if (this.unsent.length === 0) {
        if (this.ended) break;
        await (this.reading ??= this.read());
        if (this.framesError) call.cancel();
        continue; // the connection may have ended; then the frame is for the next one
      }
      const placed = this.unsent.shift()!;
      this.unanswered.set(sequence++, placed);
      if (!(await send(call, create(InferStreamRequestSchema, { payload: { case: "frame", value: placed.frame } })))) return;
    }
    if (isOpen.value) call.end();
  }

  private async read(): Promise<void> {
    try {
      const { done, value } = await this.frames.next();
      if (done) this.ended = true;
      else this.unsent.push({ place: this.count++, frame: value });
    } catch (error) {
      this.framesError = { error };
      this.ended = true;
    } finally {
      this.reading = undefined;
    }
  }

  /** The same message, with the frame's place in the whole stream. */
  private placed(payload: Payload): Payload {
    if (payload.case === "ready") {
      this.pinnedRevision = "";
      if (this.unsent.length === 0 && this.unanswered.size === 0) this.backoff.reset();
    }
    if (payload.case !== "result") return payload;
    this.backoff.reset();
    const place = this.unanswered.get(payload.value.sequence)?.place ?? payload.value.sequence;
    this.unanswered.delete(payload.value.sequence);
    return { case: "result", value: { ...payload.value, sequence: place } };
  }

  private delayAfter(error: PatchserveError): number | undefined {
    if (this.pinnedRevision && error.reason === "REVISION_MISMATCH") {
      this.own.forget(this.referenceId); // somebody else has changed the reference since
      this.pinnedRevision = "";
      return 0;
    }
    const hasAllResults = this.ended && this.unsent.length === 0 && this.unanswered.size === 0;
    if (this.backoff.resumeForMs > 0 && hasAllResults) return undefined;
    const delayMs = this.backoff.delayMs(error);
    if (delayMs === undefined) throw error;
    return delayMs;
  }
}
