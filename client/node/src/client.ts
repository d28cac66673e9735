// A client for patchserve: typed calls with the messages of the contract.
import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { type ServiceError } from "@grpc/grpc-js";
import { Channel, type ChannelOptions, send } from "./channel.js";
import { PatchserveError } from "./errors.js";
import { type InferRequestSchema, type InferResponse } from "./gen/patchserve/v1/inference_pb.js";
import { type LoadReferenceRequestSchema, LoadReferenceStreamRequestSchema, type Reference } from "./gen/patchserve/v1/reference_pb.js";
import { PatchCoreService } from "./gen/patchserve/v1/service_pb.js";
import {
  type FrameSchema,
  InferStreamRequestSchema,
  type InferStreamResponse,
  type StreamConfigSchema,
} from "./gen/patchserve/v1/stream_pb.js";

export { PatchserveError } from "./errors.js";
export * from "./gen/patchserve/v1/inference_pb.js";
export * from "./gen/patchserve/v1/reference_pb.js";
export * from "./gen/patchserve/v1/server_info_pb.js";
export * from "./gen/patchserve/v1/stream_pb.js";

type Init<T extends Parameters<typeof create>[0]> = MessageInitShape<T>;

export interface ClientOptions extends ChannelOptions {
  /** The deadline of a call, in milliseconds. Default: 30,000. */
  timeoutMs?: number;
  /** The deadline of a load, in milliseconds. Default: 600,000. */
  loadTimeoutMs?: number;
}

/** A connection to a server, HOST:PORT. Every method throws PatchserveError if the call fails. */
export class PatchserveClient {
  private readonly channel: Channel;
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

  /** Builds or extends a reference from images of undamaged items, sent one by one. Resolves when it is in use. */
  async loadReference(
    images: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    start: Init<typeof LoadReferenceRequestSchema> = {},
  ): Promise<Reference> {
    const [call, response] = this.channel.clientStream(
      PatchCoreService.method.loadReferenceStream,
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

  /** Inspects one image. Example: {image, referenceId, output: {overlay: true}}. */
  infer(request: Init<typeof InferRequestSchema>, timeoutMs = this.timeoutMs): Promise<InferResponse> {
    return this.channel.unary(PatchCoreService.method.infer, request, deadline(timeoutMs));
  }

  /**
   * Inspects a stream of frames. Yields `ready`, one `result` for each frame (also for failed ones), and notices.
   * `frames` is read as fast as the server accepts frames. Leaving the loop cancels the call. The call has no deadline;
   * config.frameTimeout limits each frame.
   */
  async *inferStream(
    frames: AsyncIterable<Init<typeof FrameSchema>> | Iterable<Init<typeof FrameSchema>>,
    config: Init<typeof StreamConfigSchema> = {},
  ): AsyncGenerator<InferStreamResponse["payload"]> {
    const call = this.channel.duplex(PatchCoreService.method.inferStream, {});
    let framesError: unknown; // what `frames` threw
    const write = (payload: Init<typeof InferStreamRequestSchema>["payload"]) =>
      send(call, create(InferStreamRequestSchema, { payload }));
    const writing = (async () => {
      let isOpen = await write({ case: "config", value: config });
      for await (const value of frames) {
        if (!isOpen) break;
        isOpen = await write({ case: "frame", value });
      }
    })().then(
      () => call.end(),
      (error: unknown) => {
        framesError = error;
        call.cancel();
      },
    );
    try {
      for await (const message of call) yield (message as InferStreamResponse).payload;
      await writing;
    } catch (error) {
      throw framesError ?? PatchserveError.fromCall(error as ServiceError);
    } finally {
      call.cancel();
    }
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
