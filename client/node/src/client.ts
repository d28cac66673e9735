// A client for patchserve: typed calls with the messages of the contract.
import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { Backoff } from "./backoff.js";
import { Channel, type ChannelOptions, send } from "./channel.js";
import { PatchserveError } from "./errors.js";
import { type InferRequestSchema, type InferResponse } from "./gen/patchserve/v1/inference_pb.js";
import {
  LoadMode,
  type LoadReferenceRequestSchema,
  LoadReferenceStreamRequestSchema,
  type Reference,
} from "./gen/patchserve/v1/reference_pb.js";
import { PatchCoreService } from "./gen/patchserve/v1/service_pb.js";
import { type InferStreamResponse, type StreamConfigSchema } from "./gen/patchserve/v1/stream_pb.js";
import { OwnChanges } from "./own-changes.js";
import { FrameStream, type Frames } from "./stream.js";

export { PatchserveError } from "./errors.js";
export * from "./gen/patchserve/v1/inference_pb.js";
export * from "./gen/patchserve/v1/reference_pb.js";
export * from "./gen/patchserve/v1/server_info_pb.js";
export * from "./gen/patchserve/v1/stream_pb.js";

const DEFAULT_ID = "default";
const UNARY_LOAD_BYTES = 16 * 1024 * 1024;

type Init<T extends Parameters<typeof create>[0]> = MessageInitShape<T>;

export interface ClientOptions extends ChannelOptions {
  /** The deadline of a call, in milliseconds. Default: 30,000. */
  timeoutMs?: number;
  /** The deadline of a load, in milliseconds. Default: 600,000. */
  loadTimeoutMs?: number;
}

/**
 * A connection to a server, HOST:PORT, or to all that a name has, dns:///HOST:PORT. Every method throws PatchserveError
 * if the call fails. Calls that are safe to repeat are retried while a server is UNAVAILABLE, within their deadline.
 */
export class PatchserveClient {
  private readonly channel: Channel;
  private readonly own = new OwnChanges();
  private readonly timeoutMs: number;
  private readonly loadTimeoutMs: number;

  constructor(server: string, options: ClientOptions = {}) {
    this.channel = new Channel(server, options);
    this.timeoutMs = options.timeoutMs ?? 30_000;
    this.loadTimeoutMs = options.loadTimeoutMs ?? 600_000;
  }

  close(): void {
    this.channel.close();
  }

  /**
   * Builds or extends a reference from images of undamaged items. Resolves when it is in use. An array of images that
   * replaces a reference is one message, up to 16 MiB, which is retried while the server is unavailable. Others are sent
   * one by one, and once.
   */
  async loadReference(
    images: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    start: Init<typeof LoadReferenceRequestSchema> = {},
  ): Promise<Reference> {
    const isSafe = start.mode !== LoadMode.APPEND || Boolean(start.expectedRevision);
    const bytes = Array.isArray(images) ? (images as Uint8Array[]).reduce((sum, image) => sum + image.length, 0) : Infinity;
    const reference =
      isSafe && bytes <= UNARY_LOAD_BYTES
        ? await this.loadAtOnce({ ...start, images: images as Uint8Array[] })
        : await this.loadOneByOne(images, start);
    this.own.note(reference.referenceId, reference.revision);
    return reference;
  }

  private async loadAtOnce(request: Init<typeof LoadReferenceRequestSchema>): Promise<Reference> {
    const { method } = PatchCoreService;
    return (await this.channel.unary(method.loadReference, request, deadline(this.loadTimeoutMs))).reference!;
  }

  private async loadOneByOne(
    images: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    start: Init<typeof LoadReferenceRequestSchema>,
  ): Promise<Reference> {
    const [call, response] = this.channel.clientStream(
      PatchCoreService.method.loadReferenceStream,
      start.referenceId || DEFAULT_ID,
      deadline(this.loadTimeoutMs),
    );
    response.catch(() => {}); // awaited below; it can fail while images are still read
    const write = (payload: Init<typeof LoadReferenceStreamRequestSchema>["payload"]) =>
      send(call, create(LoadReferenceStreamRequestSchema, { payload }));
    try {
      let isOpen = await write({ case: "start", value: start });
      for await (const value of images) {
        if (!isOpen) break;
        isOpen = await write({ case: "image", value });
      }
    } catch (error) {
      call.cancel(); // half of the images must not become the reference
      throw error;
    }
    call.end();
    return (await response).reference!;
  }

  /**
   * Inspects one image. Example: {image, referenceId, output: {overlay: true}}. For 10 s after this client has changed
   * the reference, it asks for its own revision, so that every server of a fleet has it.
   */
  async infer(request: Init<typeof InferRequestSchema>, timeoutMs = this.timeoutMs): Promise<InferResponse> {
    const until = deadline(timeoutMs);
    const call = (expectedRevision = request.expectedRevision ?? "") =>
      this.channel.unary(PatchCoreService.method.infer, { ...request, expectedRevision }, until);
    const referenceId = request.referenceId || DEFAULT_ID;
    const pinned = request.expectedRevision ? "" : this.own.revisionOf(referenceId);
    if (!pinned) return call();
    try {
      return await call(pinned);
    } catch (error) {
      if (!(error instanceof PatchserveError) || error.reason !== "REVISION_MISMATCH") throw error;
      this.own.forget(referenceId); // somebody else has changed it since
      return call();
    }
  }

  /**
   * Inspects a stream of frames. Yields `ready`, one `result` for each frame (also for failed ones), and notices.
   * `frames` is read as fast as the server accepts frames. Leaving the loop cancels the call. The call has no deadline;
   * config.frameTimeout limits each frame.
   *
   * With `resumeForMs`, it connects again if the connection is lost or the server drains, and sends frames without a
   * result again; it stops after so long without a result. Each connection has its own `ready`.
   */
  inferStream(
    frames: Frames,
    config: Init<typeof StreamConfigSchema> = {},
    { resumeForMs = 0 }: { resumeForMs?: number } = {},
  ): AsyncGenerator<InferStreamResponse["payload"]> {
    return new FrameStream(this.channel, frames, config, new Backoff(resumeForMs), this.own).payloads();
  }

  async getReference(referenceId: string): Promise<Reference> {
    const response = await this.channel.unary(PatchCoreService.method.getReference, { referenceId }, deadline(this.timeoutMs));
    return response.reference!;
  }

  /** All references, sorted by id. Fetches one page at a time. */
  async *listReferences(): AsyncGenerator<Reference> {
    let pageToken = "";
    do {
      const page = await this.channel.unary(PatchCoreService.method.listReferences, { pageToken }, deadline(this.timeoutMs));
      yield* page.references;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /** Deletes a reference. Resolves to its last revision. */
  async deleteReference(referenceId: string, expectedRevision = ""): Promise<string> {
    const request = { referenceId, expectedRevision };
    this.own.forget(referenceId || DEFAULT_ID);
    return (await this.channel.unary(PatchCoreService.method.deleteReference, request, deadline(this.timeoutMs))).revision;
  }

  /** Version, backbone and all limits of the server. */
  serverInfo() {
    return this.channel.unary(PatchCoreService.method.getServerInfo, {}, deadline(this.timeoutMs));
  }
}

function deadline(timeoutMs: number) {
  return { deadline: Date.now() + timeoutMs };
}
