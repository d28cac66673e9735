// A client of patchserve: typed calls, messages as the contract has them.
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
  /** The deadline of a call, in milliseconds; 30,000 where left out. */
  timeoutMs?: number;
  /** The deadline of a load, in milliseconds; 600,000 where left out. */
  loadTimeoutMs?: number;
}

/** A connection to a server, HOST:PORT. Every method throws PatchserveError for what the server says. */
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

  /** Builds or extends a reference from images of undamaged items, sent one by one; resolves when it serves. */
  async loadReference(
    images: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    start: Init<typeof LoadReferenceRequestSchema> = {},
  ): Promise<Reference> {
    const [sending, answer] = this.channel.clientStream(
      PatchCoreService.method.loadReferenceStream,
      deadline(this.loadTimeoutMs),
    );
    answer.catch(() => {}); // it is awaited below; images may still be read when it fails
    const say = (payload: Init<typeof LoadReferenceStreamRequestSchema>["payload"]) =>
      send(sending, create(LoadReferenceStreamRequestSchema, { payload }));
    try {
      let open = await say({ case: "start", value: start });
      for await (const value of images) {
        if (!open) break;
        open = await say({ case: "image", value });
      }
    } catch (error) {
      sending.cancel(); // half of the images must not become the reference
      throw error;
    }
    sending.end();
    return (await answer).reference!;
  }

  /** Inspects one image: {image, referenceId, output: {overlay: true}}. */
  infer(request: Init<typeof InferRequestSchema>, timeoutMs = this.timeoutMs): Promise<InferResponse> {
    return this.channel.unary(PatchCoreService.method.infer, request, deadline(timeoutMs));
  }

  /**
   * Inspects frames as they come; yields `ready`, a `result` for each frame, failed ones too, and notices. `frames` is
   * read as fast as the server takes them. Leaving the loop cancels the call. There is no deadline on the whole:
   * config.frameTimeout bounds each frame.
   */
  async *inferStream(
    frames: AsyncIterable<Init<typeof FrameSchema>> | Iterable<Init<typeof FrameSchema>>,
    config: Init<typeof StreamConfigSchema> = {},
  ): AsyncGenerator<InferStreamResponse["payload"]> {
    const call = this.channel.duplex(PatchCoreService.method.inferStream, {});
    let broken: unknown; // what `frames` threw
    const say = (payload: Init<typeof InferStreamRequestSchema>["payload"]) =>
      send(call, create(InferStreamRequestSchema, { payload }));
    const writing = (async () => {
      let open = await say({ case: "config", value: config });
      for await (const value of frames) {
        if (!open) break;
        open = await say({ case: "frame", value });
      }
    })().then(
      () => call.end(),
      (error: unknown) => {
        broken = error;
        call.cancel();
      },
    );
    try {
      for await (const message of call) yield (message as InferStreamResponse).payload;
      await writing;
    } catch (error) {
      throw broken ?? PatchserveError.fromCall(error as ServiceError);
    } finally {
      call.cancel();
    }
  }

  async getReference(referenceId: string): Promise<Reference> {
    const answer = await this.channel.unary(PatchCoreService.method.getReference, { referenceId }, deadline(this.timeoutMs));
    return answer.reference!;
  }

  /** All references in the order of their ids, fetched a page at a time. */
  async *listReferences(): AsyncGenerator<Reference> {
    let pageToken = "";
    do {
      const page = await this.channel.unary(PatchCoreService.method.listReferences, { pageToken }, deadline(this.timeoutMs));
      yield* page.references;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /** Removes a reference; resolves to the revision that it had. */
  async deleteReference(referenceId: string, expectedRevision = ""): Promise<string> {
    const request = { referenceId, expectedRevision };
    return (await this.channel.unary(PatchCoreService.method.deleteReference, request, deadline(this.timeoutMs))).revision;
  }

  /** What the server is, with every limit. */
  serverInfo() {
    return this.channel.unary(PatchCoreService.method.getServerInfo, {}, deadline(this.timeoutMs));
  }
}

function deadline(timeoutMs: number) {
  return { deadline: Date.now() + timeoutMs };
}
