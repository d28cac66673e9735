package patchserve.client;

import com.google.common.collect.Iterators;
import com.google.protobuf.ByteString;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import patchserve.v1.Frame;
import patchserve.v1.InferRequest;
import patchserve.v1.InferResponse;
import patchserve.v1.InferStreamRequest;
import patchserve.v1.InferStreamResponse;
import patchserve.v1.LoadReferenceRequest;
import patchserve.v1.LoadReferenceStreamRequest;
import patchserve.v1.PatchCoreServiceGrpc;
import patchserve.v1.Reference;
import patchserve.v1.StreamConfig;

/**
 * A connection to a server. It is safe for use by several threads. Close it after use.
 *
 * <p>The calls here throw {@link PatchserveException} if they fail. {@link #stub} has the generated methods of the
 * contract. Unary calls that are safe to repeat are retried while a server is UNAVAILABLE, within their deadline.
 */
public final class PatchserveClient implements AutoCloseable {
    private final ManagedChannel channel;
    private final OwnChanges own;

    private PatchserveClient(ManagedChannel channel, OwnChanges own) {
        this.channel = channel;
        this.own = own;
    }

    /** Prepares a connection to HOST:PORT, in plain text and without a token; the first call opens it. */
    public static PatchserveClient connect(String server) {
        return connect(server, new ConnectionOptions());
    }

    /**
     * Prepares a connection to HOST:PORT, or to all servers that a name has, dns:///HOST:PORT; the first call opens it.
     *
     * @throws IllegalArgumentException if the options contradict each other, or a file is not usable
     */
    public static PatchserveClient connect(String server, ConnectionOptions options) {
        var own = new OwnChanges();
        return new PatchserveClient(options.channel(server, new ReferenceHeader(own)), own);
    }

    /** Ends the connection. Running calls fail. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    /** The channel, for other generated stubs. */
    public ManagedChannel channel() {
        return channel;
    }

    /** Every method of the contract. {@link PatchserveException#of} converts what it throws. */
    public PatchCoreServiceGrpc.PatchCoreServiceBlockingStub stub(Duration timeout) {
        return PatchCoreServiceGrpc.newBlockingStub(channel).withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
    }

    /**
     * Inspects one image. For 10 s after this client has changed the reference, it asks for its own revision, so that
     * every server of a fleet has it.
     */
    public InferResponse infer(InferRequest request, Duration timeout) {
        var stub = stub(timeout);
        String referenceId = ReferenceHeader.idOf(request.getReferenceId());
        String pinned = request.getExpectedRevision().isEmpty() ? own.revisionOf(referenceId) : "";
        if (pinned.isEmpty()) {
            return infer(stub, request);
        }
        try {
            return infer(stub, request.toBuilder().setExpectedRevision(pinned).build());
        } catch (PatchserveException failed) {
            if (!failed.reason().equals("REVISION_MISMATCH")) {
                throw failed;
            }
            own.forget(referenceId); // somebody else has changed it since
            return infer(stub, request);
        }
    }

    private static InferResponse infer(PatchCoreServiceGrpc.PatchCoreServiceBlockingStub stub, InferRequest request) {
        try {
            return stub.infer(request);
        } catch (StatusRuntimeException failed) {
            throw PatchserveException.of(failed);
        }
    }

    /**
     * Builds or extends a reference from encoded images of undamaged items, sent one by one and once. Returns when it is
     * in use. A few images that replace a reference can be sent with {@code stub(timeout).loadReference(...)}, which is
     * retried.
     * If {@code images} throws, the load ends without a reference, and this method throws the same.
     */
    public Reference load(LoadReferenceRequest start, Iterator<ByteString> images, Duration timeout) {
        var first = LoadReferenceStreamRequest.newBuilder().setStart(start).build();
        var others = Iterators.transform(
                images, image -> LoadReferenceStreamRequest.newBuilder().setImage(image).build());
        var method = PatchCoreServiceGrpc.getLoadReferenceStreamMethod();
        // An early exit cancels the call: half of the images must not become the reference.
        try (var call = open(method, within(timeout), start.getReferenceId())) {
            call.sendAll(Iterators.concat(Iterators.singletonIterator(first), others));
            var response = call.next();
            call.next(); // waits for the end: the call can still fail after its response
            Objects.requireNonNull(response, "The server ended the load without a response.");
            own.note(response.getReference());
            return response.getReference();
        }
    }

    /** As below, without a deadline. The config's frame_timeout limits each frame. */
    public void stream(StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle) {
        stream(config, frames, handle, CallOptions.DEFAULT, Duration.ZERO);
    }

    /**
     * Inspects a stream of frames. {@code frames} is read in another thread, as fast as the server accepts frames. If
     * the stream ends earlier, this thread is interrupted. {@code handle} gets every message of the server: ready, one
     * result for each frame (also for failed ones), and notices. If either throws, the stream is cancelled, and this
     * method throws the same.
     */
    public void stream(
            StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle, Duration timeout) {
        stream(config, frames, handle, within(timeout), Duration.ZERO);
    }

    /**
     * As {@link #stream}, without a deadline; connects again if the connection is lost or the server drains, and sends
     * frames without a result again. It stops after {@code resumeFor} without a result. Each connection has its own
     * ready.
     */
    public void resumingStream(
            StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle, Duration resumeFor) {
        stream(config, frames, handle, CallOptions.DEFAULT, resumeFor);
    }

    private void stream(
            StreamConfig config,
            Iterator<Frame> frames,
            Consumer<InferStreamResponse> handle,
            CallOptions options,
            Duration resumeFor) {
        Supplier<Exchange<InferStreamRequest, InferStreamResponse>> open =
                () -> open(PatchCoreServiceGrpc.getInferStreamMethod(), options, config.getReferenceId());
        new FrameStream(open, config, frames, handle, new Backoff(resumeFor), own).run();
    }

    private <Q, A> Exchange<Q, A> open(MethodDescriptor<Q, A> method, CallOptions options, String referenceId) {
        return new Exchange<>(channel, method, options, ReferenceHeader.of(ReferenceHeader.idOf(referenceId)));
    }

    private static CallOptions within(Duration timeout) {
        return CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
    }
}
