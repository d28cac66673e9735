// Calls with @grpc/grpc-js and the messages of @bufbuild/protobuf.
import {
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodClientStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
  create,
  fromBinary,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type CallOptions,
  Client,
  type ClientDuplexStream,
  type ClientWritableStream,
  Metadata,
  type ServiceError,
  credentials,
} from "@grpc/grpc-js";
import { readFileSync } from "node:fs";
import { PatchserveError } from "./errors.js";
import { serviceConfig } from "./service-config.js";

const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
/** Names the reference of a call, so that a balancer can send it to a server that has it in memory. */
const REFERENCE_HEADER = "x-patchserve-reference";
const REFERENCE_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/; // the server rejects every other one

export interface ChannelOptions {
  /** Use TLS. All paths are PEM files. `ca`: the authorities for the server's certificate; default: well-known ones. */
  tls?: { ca?: string; cert?: string; key?: string };
  /** The bearer token. */
  token?: string;
  /** Allow sending the token unencrypted to another machine, for example inside a VPN. */
  insecureToken?: boolean;
}

export class Channel {
  private readonly client: Client;

  constructor(
    server: string,
    private readonly options: ChannelOptions = {},
  ) {
    const { tls, token, insecureToken } = options;
    if (token && !tls && !insecureToken && !/^(dns:\/\/\/)?(localhost|127\.0\.0\.1|\[::1\]):\d+$/.test(server)) {
      throw new Error(`The token would be sent unencrypted to ${server}: use TLS, or insecureToken.`);
    }
    const read = (path?: string) => (path === undefined ? null : readFileSync(path));
    const security = tls
      ? credentials.createSsl(read(tls.ca), read(tls.key), read(tls.cert))
      : credentials.createInsecure();
    this.client = new Client(server, security, {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.keepalive_time_ms": 60_000,
      "grpc.service_config": serviceConfig(server),
      // grpc-js does not retry a request larger than these buffers: of one call, and of all.
      "grpc.per_rpc_retry_buffer_size": MAX_MESSAGE_BYTES,
      "grpc.retry_buffer_size": 4 * MAX_MESSAGE_BYTES,
      // Reconnect to a restarted server soon.
      "grpc.initial_reconnect_backoff_ms": 200,
      "grpc.max_reconnect_backoff_ms": 5_000,
    });
  }

  close(): void {
    this.client.close();
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    call: CallOptions,
    token = this.options.token,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      const [path, write, read] = wire(method);
      const message = create(method.input, request);
      const headers = metadata(token, referenceOf(message));
      this.client.makeUnaryRequest(path, write, read, message, headers, call, callback(resolve, reject));
    });
  }

  /** Returns a stream of requests, and a promise of the one response. */
  clientStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodClientStreaming<I, O>,
    referenceId: string,
    call: CallOptions,
  ): [ClientWritableStream<MessageShape<I>>, Promise<MessageShape<O>>] {
    const { promise, resolve, reject } = deferred<MessageShape<O>>();
    const [path, write, read] = wire(method);
    const sending = this.client.makeClientStreamRequest(
      path,
      write,
      read,
      metadata(this.options.token, referenceId),
      call,
      callback(resolve, reject),
    );
    return [sending, promise];
  }

  duplex<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    call: CallOptions,
    token = this.options.token,
  ): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
    return this.client.makeBidiStreamRequest(...wire(method), metadata(token), call);
  }

  /** A stream about a reference, without a deadline. */
  openStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    referenceId: string,
  ): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
    return this.client.makeBidiStreamRequest(...wire(method), metadata(this.options.token, referenceId), {});
  }
}

/**
 * Writes one message. Waits while HTTP/2 flow control holds the sender back. Resolves to false if the call has ended.
 */
export function send<T>(call: ClientWritableStream<T> | ClientDuplexStream<T, unknown>, message: T): Promise<boolean> {
  if (call.destroyed || call.writableEnded) return Promise.resolve(false);
  if (call.write(message)) return Promise.resolve(true);
  return new Promise((resolve) => {
    const listeners = { drain: () => done(true), status: () => done(false), error: () => done(false) };
    const done = (sent: boolean) => {
      for (const [event, listener] of Object.entries(listeners)) call.removeListener(event, listener);
      resolve(sent);
    };
    for (const [event, listener] of Object.entries(listeners)) call.on(event, listener);
  });
}

function metadata(token: string | undefined, referenceId = ""): Metadata {
  const headers = new Metadata();
  if (token) headers.set("authorization", `Bearer ${token}`);
  if (REFERENCE_ID.test(referenceId)) headers.set(REFERENCE_HEADER, referenceId);
  return headers;
}

/** The reference that a request is about; empty if it is about none, or about all. */
function referenceOf(message: { $typeName: string; referenceId?: string }): string {
  if (message.referenceId === undefined) return "";
  return message.referenceId || (message.$typeName === "patchserve.v1.ListLoadsRequest" ? "" : "default");
}

function wire<I extends DescMessage, O extends DescMessage>(
  method: DescMethod & { input: I; output: O },
): [string, (message: MessageShape<I>) => Buffer, (bytes: Buffer) => MessageShape<O>] {
  return [
    `/${method.parent.typeName}/${method.name}`,
    (message) => Buffer.from(toBinary(method.input, message)),
    (bytes) => fromBinary(method.output, bytes),
  ];
}

function callback<T>(resolve: (value: T) => void, reject: (error: Error) => void) {
  return (error: ServiceError | null, value?: T) => {
    if (error) reject(PatchserveError.fromCall(error));
    else resolve(value as T);
  };
}

function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
