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

/** What a server, or the way to it, says of a failed call, or of a failed frame of a stream. */
@SuppressWarnings("serial") // thrown and caught, not stored
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
                addSuppressed(unreadable); // the code and the message are known all the same
            }
        }
    }

    /** Reads what a generated stub threw, with the details that its trailers carry. */
    public static PatchserveException of(StatusRuntimeException failed) {
        Status status = failed.getStatus();
        String message = Objects.requireNonNullElse(status.getDescription(), "");
        if (status.getCause() != null) { // no answer came: gRPC speaks of its pipelines, the cause of what is wrong
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

    /** Reads the error of a frame. */
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

    /** The server's own name for the case, such as REFERENCE_NOT_FOUND; empty where it did not say. */
    public String reason() {
        return reason;
    }

    /** The fields of the request that are wrong. */
    public List<BadRequest.FieldViolation> fieldViolations() {
        return fieldViolations;
    }

    /** What is not as the request expects it. */
    public List<PreconditionFailure.Violation> preconditionViolations() {
        return preconditionViolations;
    }

    /** What is not there, or has changed; empty where the server did not say. */
    public String resourceName() {
        return resourceName;
    }

    /** Finds an INTERNAL error in the server's log. */
    public String requestId() {
        return requestId;
    }

    /** When trying again makes sense; empty where the server does not say. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }
}
