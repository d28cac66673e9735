package patchserve.client;

import com.google.common.base.Throwables;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RequestInfo;
import com.google.rpc.ResourceInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Optional;

/** A failed call, or a failed frame of a stream. */
@SuppressWarnings("serial") // never serialized
public final class PatchserveException extends RuntimeException {
    private static final String DOMAIN = "patchserve.v1";
    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    private final Status.Code code;
    private String reason = "";
    private List<BadRequest.FieldViolation> fieldViolations = List.of();
    private List<PreconditionFailure.Violation> preconditionViolations = List.of();
    private String resourceName = "";
    private String requestId = "";
    private Duration retryAfter;

    private PatchserveException(Status.Code code, String message, List<Any> details, Throwable cause) {
        super(message, cause);
        this.code = code;
        for (Any detail : details) {
            try {
                read(detail);
            } catch (InvalidProtocolBufferException unreadable) {
                addSuppressed(unreadable); // code and message are still useful
            }
        }
    }

    /** From the exception of a generated stub, with the details in its trailing metadata. */
    public static PatchserveException of(StatusRuntimeException failed) {
        Status status = failed.getStatus();
        String message = Objects.requireNonNullElse(status.getDescription(), "");
        if (status.getCause() != null) { // no response: gRPC's message is about its internals, the root cause is useful
            Throwable root = Throwables.getRootCause(status.getCause());
            message = message.lines().findFirst().orElse("") + ": "
                    + Objects.requireNonNullElse(root.getMessage(), root.toString());
        }
        return new PatchserveException(status.getCode(), message, details(failed.getTrailers()), failed);
    }

    private static List<Any> details(Metadata trailers) {
        byte[] packed = trailers == null ? null : trailers.get(DETAILS);
        try {
            return packed == null ? List.of() : com.google.rpc.Status.parseFrom(packed).getDetailsList();
        } catch (InvalidProtocolBufferException unreadable) {
            return List.of(); // as above
        }
    }

    /** From the error of a frame. */
    public static PatchserveException ofFrame(com.google.rpc.Status failed) {
        Status.Code code = Status.fromCodeValue(failed.getCode()).getCode();
        return new PatchserveException(code, failed.getMessage(), failed.getDetailsList(), null);
    }

    private void read(Any detail) throws InvalidProtocolBufferException {
        if (detail.is(ErrorInfo.class)) {
            ErrorInfo info = detail.unpack(ErrorInfo.class);
            reason = info.getDomain().equals(DOMAIN) ? info.getReason() : reason;
        } else if (detail.is(BadRequest.class)) {
            fieldViolations = detail.unpack(BadRequest.class).getFieldViolationsList();
        } else if (detail.is(PreconditionFailure.class)) {
            preconditionViolations = detail.unpack(PreconditionFailure.class).getViolationsList();
        } else if (detail.is(ResourceInfo.class)) {
            resourceName = detail.unpack(ResourceInfo.class).getResourceName();
        } else if (detail.is(RequestInfo.class)) {
            requestId = detail.unpack(RequestInfo.class).getRequestId();
        } else if (detail.is(RetryInfo.class)) {
            var delay = detail.unpack(RetryInfo.class).getRetryDelay();
            retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        }
    }

    /** The gRPC code, such as NOT_FOUND. */
    public Status.Code code() {
        return code;
    }

    /** The server's name for the error, such as REFERENCE_NOT_FOUND; empty if it does not come from patchserve. */
    public String reason() {
        return reason;
    }

    /** The invalid fields of the request. */
    public List<BadRequest.FieldViolation> fieldViolations() {
        return fieldViolations;
    }

    /** The preconditions of the request that do not hold. */
    public List<PreconditionFailure.Violation> preconditionViolations() {
        return preconditionViolations;
    }

    /** The resource that is missing or has changed; empty if the server does not say. */
    public String resourceName() {
        return resourceName;
    }

    /** The id of an INTERNAL error in the server's log. */
    public String requestId() {
        return requestId;
    }

    /** When to retry; empty if the server does not say. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }
}
