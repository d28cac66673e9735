// The conformance runner: runs test cases and prints their outcomes. tests/conformance/README.md defines the format.
import { type DescMethod, type DescService, create, createRegistry, fromJson, toJson } from "@bufbuild/protobuf";
import { type JsonValue } from "@bufbuild/protobuf";
import { type ClientDuplexStream, type ServiceError } from "@grpc/grpc-js";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Channel, type ChannelOptions, send } from "./channel.js";
import { PatchserveError } from "./errors.js";
import { file_google_rpc_error_details } from "./gen/google/rpc/error_details_pb.js";
import { Health } from "./gen/grpc/health/v1/health_pb.js";
import { PatchCoreService } from "./gen/patchserve/v1/service_pb.js";

const TIMEOUT_S = 60;
const registry = createRegistry(file_google_rpc_error_details);

type Step = { send?: JsonValue; times?: number; await?: number; call?: Case; until_loads?: number; cancel?: true };
type Case = { name?: string; rpc: string; request?: JsonValue; steps?: Step[]; timeout_s?: number; token?: string };
type Outcome = { code: string; error: object | null; responses: JsonValue[]; calls: Outcome[] };

export async function conformance(server: string, options: ChannelOptions, cases: string, images: string) {
  const channel = new Channel(server, options);
  for (const testCase of JSON.parse(readFileSync(cases, "utf8")).cases as Case[]) {
    const outcome = await runCase(channel, images, testCase);
    console.log(JSON.stringify({ name: testCase.name, ...outcome }));
  }
  channel.close();
}

async function runCase(channel: Channel, images: string, testCase: Case): Promise<Outcome> {
  const call = new Call(channel, testCase);
  const calls: Outcome[] = [];
  for (const step of testCase.steps ?? [{ send: testCase.request }]) {
    if (step.send !== undefined) {
      for (let time = 0; time < (step.times ?? 1); time++) await call.send(withImages(step.send, images));
    } else if (step.await !== undefined) {
      await call.until(() => call.responses.length >= step.await!);
    } else if (step.call !== undefined) {
      calls.push(await runCase(channel, images, { token: testCase.token, ...step.call }));
    } else if (step.until_loads !== undefined) {
      await untilLoads(channel, step.until_loads, testCase.token);
    } else {
      call.stream.cancel();
    }
  }
  call.stream.end();
  await call.until(() => false);
  const { error, responses } = call;
  return { code: error?.code ?? "OK", error: error ? errorFields(error) : null, responses, calls };
}

/** A call of any method, as a stream of requests and a stream of responses: in HTTP/2, every call is one. */
class Call {
  readonly responses: JsonValue[] = [];
  readonly stream: ClientDuplexStream<any, any>;
  error: PatchserveError | undefined;
  private ended = false;
  private changed = () => {};

  constructor(
    channel: Channel,
    testCase: Case,
    private readonly method = methodOf(testCase.rpc),
  ) {
    const deadline = Date.now() + (testCase.timeout_s ?? TIMEOUT_S) * 1000;
    this.stream = channel.duplex({ ...method, methodKind: "bidi_streaming" } as any, { deadline }, testCase.token);
    void this.read();
  }

  private async read(): Promise<void> {
    try {
      for await (const message of this.stream) {
        this.responses.push(toJson(this.method.output, message, { registry }));
        this.changed();
      }
    } catch (error) {
      this.error = PatchserveError.fromCall(error as ServiceError);
    }
    this.ended = true;
    this.changed();
  }

  send(request: JsonValue): Promise<boolean> {
    return send(this.stream, fromJson(this.method.input, request));
  }

  async until(reached: () => boolean): Promise<void> {
    while (!this.ended && !reached()) await new Promise<void>((resolve) => (this.changed = resolve));
  }
}

function methodOf(rpc: string): DescMethod {
  const service: DescService = rpc === "Check" ? Health : PatchCoreService;
  return service.methods.find((method) => method.name === rpc)!;
}

async function untilLoads(channel: Channel, count: number, token: string | undefined): Promise<void> {
  const request = create(PatchCoreService.method.listLoads.input);
  const deadline = Date.now() + TIMEOUT_S * 1000;
  while ((await channel.unary(PatchCoreService.method.listLoads, request, { deadline }, token)).loads.length < count);
}

/** The same value, with "@NAME" replaced by the Base64 content of that image. */
function withImages(value: JsonValue, images: string): JsonValue {
  if (typeof value === "string") {
    return value.startsWith("@") ? readFileSync(join(images, value.slice(1))).toString("base64") : value;
  }
  if (Array.isArray(value)) return value.map((item) => withImages(item, images));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withImages(item, images)]));
}

function errorFields(error: PatchserveError): object {
  return {
    reason: error.reason,
    field_violations: error.fieldViolations.map(({ field }) => ({ field })),
    precondition_violations: error.preconditionViolations.map(({ type, subject }) => ({ type, subject })),
    resource_name: error.resourceName,
    retry_after_s: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000,
  };
}
