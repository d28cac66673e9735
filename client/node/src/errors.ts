// The error of a failed call or frame.
import { type Message, fromBinary } from "@bufbuild/protobuf";
import { type GenMessage } from "@bufbuild/protobuf/codegenv2";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RequestInfoSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "./gen/google/rpc/status_pb.js";

const DOMAIN = "patchserve.v1";

/**
 * A failed call, or a failed frame of a stream. `code` is the name of the gRPC code, such as "NOT_FOUND". `reason` is
 * the server's name for the error, such as "REFERENCE_NOT_FOUND"; empty if the error does not come from patchserve.
 */
export class PatchserveError extends Error {
  override readonly name = "PatchserveError";
  readonly code: string;
  readonly reason: string;
  readonly fieldViolations: { field: string; description: string }[];
  readonly preconditionViolations: { type: string; subject: string; description: string }[];
  readonly resourceName: string;
  /** The id of an INTERNAL error in the server's log. */
  readonly requestId: string;
  /** When to retry; undefined if the server does not say. */
  readonly retryAfterMs: number | undefined;

  constructor(code: number, message: string, details: Status["details"] = [], options?: ErrorOptions) {
    super(message, options);
    const detail = <T extends Message>(schema: GenMessage<T>): T | undefined => {
      for (const packed of details) {
        const found = anyUnpack(packed, schema);
        if (found !== undefined) return found as T;
      }
      return undefined;
    };
    const info = detail(ErrorInfoSchema);
    const delay = detail(RetryInfoSchema)?.retryDelay;
    this.code = status[code] ?? "UNKNOWN";
    this.reason = info?.domain === DOMAIN ? info.reason : "";
    this.fieldViolations = detail(BadRequestSchema)?.fieldViolations ?? [];
    this.preconditionViolations = detail(PreconditionFailureSchema)?.violations ?? [];
    this.resourceName = detail(ResourceInfoSchema)?.resourceName ?? "";
    this.requestId = detail(RequestInfoSchema)?.requestId ?? "";
    this.retryAfterMs = delay && durationMs(delay);
  }

  static fromStatus(failed: Status): PatchserveError {
    return new PatchserveError(failed.code, failed.message, failed.details);
  }

  /** From an error of grpc-js, with the details in its trailing metadata. */
  static fromCall(error: ServiceError): PatchserveError {
    const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
    const details = packed instanceof Buffer ? fromBinary(StatusSchema, packed).details : [];
    return new PatchserveError(error.code, error.details || error.message, details, { cause: error });
  }
}
