package patchserve.client;

import com.google.common.base.Throwables;
import com.google.common.collect.Iterators;
import com.google.protobuf.ByteString;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
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
 * A connection to a server. Safe for use by several threads; close it.
 *
 * <p>The calls here throw {@link PatchserveException} for what the server says. Every method of the contract as
 * generated is in {@link #stub}.
 */
public final class PatchserveClient implements AutoCloseable {
    private final ManagedChannel channel;

    private PatchserveClient(ManagedChannel channel) {
        this.channel = channel;
    }

    /** Prepares a connection to HOST:PORT, in plain text and without a token; the first call opens it. */
    public static PatchserveClient connect(String server) {
        return connect(server, new ConnectionOptions());
    }

    /**
     * Prepares a connection to HOST:PORT; the first call opens it.
     *
     * @throws IllegalArgumentException where the options do not fit together, or a file is not what it should be
     */
    public static PatchserveClient connect(String server, ConnectionOptions options) {
        return new PatchserveClient(options.channel(server));
    }

    /** Ends the connection; calls under way fail. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    /** What generated stubs of other kinds are made with. */
    public ManagedChannel channel() {
        return channel;
    }

    /** Every method of the contract. What it throws is read by {@link PatchserveException#of}. */
    public PatchCoreServiceGrpc.PatchCoreServiceBlockingStub stub(Duration timeout) {
        return PatchCoreServiceGrpc.newBlockingStub(channel).withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
    }

    /** Inspects one image. */
    public InferResponse infer(InferRequest request, Duration timeout) {
        try {
            return stub(timeout).infer(request);
        } catch (StatusRuntimeException failed) {
            throw PatchserveException.of(failed);
        }
    }

    /**
     * Builds or extends a reference from encoded images of undamaged items, sent one by one; returns when it serves.
     * What {@code images} throws ends the load without a reference and is thrown here.
     */
    public Reference load(LoadReferenceRequest start, Iterator<ByteString> images, Duration timeout) {
        var first = LoadReferenceStreamRequest.newBuilder().setStart(start).build();
        var others = Iterators.transform(
                images, image -> LoadReferenceStreamRequest.newBuilder().setImage(image).build());
        // Left early, it cancels: half of the images must not become the reference.
        try (var call = open(PatchCoreServiceGrpc.getLoadReferenceStreamMethod(), within(timeout))) {
            call.sendAll(Iterators.concat(Iterators.singletonIterator(first), others));
            var answer = call.next();
            call.next(); // the end: only now is it known that the call did not fail
            return Objects.requireNonNull(answer, "The server ended the load without an answer.").getReference();
        }
    }

    /** As below, for as long as it takes; of a frame, the config's frame_timeout bounds the time. */
    public void stream(StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle) {
        stream(config, frames, handle, CallOptions.DEFAULT);
    }

    /**
     * Inspects frames as they come. {@code frames} is asked from another thread, as fast as the server takes them; the
     * thread is interrupted where the stream has ended before. {@code handle} gets every message of the server: ready,
     * a result for each frame, failed ones too, and notices. What either throws cancels the stream and is thrown here.
     */
    public void stream(
            StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle, Duration timeout) {
        stream(config, frames, handle, within(timeout));
    }

    private void stream(
            StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle, CallOptions options) {
        var first = InferStreamRequest.newBuilder().setConfig(config).build();
        var others = Iterators.transform(frames, frame -> InferStreamRequest.newBuilder().setFrame(frame).build());
        var broken = new AtomicReference<Throwable>(); // what `frames` threw; set before the call is cancelled
        try (var call = open(PatchCoreServiceGrpc.getInferStreamMethod(), options)) {
            var writer = new Thread(() -> {
                try {
                    call.sendAll(Iterators.concat(Iterators.singletonIterator(first), others));
                } catch (Throwable error) {
                    broken.set(error);
                    call.cancel("the frames ended with an error", error);
                }
            }, "patchserve-stream");
            writer.setDaemon(true); // it may wait for a frame that never comes
            writer.start();
            try {
                for (var response = call.next(); response != null; response = call.next()) {
                    handle.accept(response);
                }
            } catch (PatchserveException failed) {
                if (broken.get() != null) {
                    Throwables.throwIfUnchecked(broken.get());
                }
                throw failed;
            } finally {
                writer.interrupt(); // not before: what comes of that is no error of the stream
            }
        }
    }

    private <Q, A> Exchange<Q, A> open(MethodDescriptor<Q, A> method, CallOptions options) {
        return new Exchange<>(channel, method, options, new Metadata());
    }

    private static CallOptions within(Duration timeout) {
        return CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
    }
}
