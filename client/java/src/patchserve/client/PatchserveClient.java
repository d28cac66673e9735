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
 * A connection to a server. It is safe for use by several threads. Close it after use.
 *
 * <p>The calls here throw {@link PatchserveException} if they fail. {@link #stub} has the generated methods of the
 * contract.
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
     * @throws IllegalArgumentException if the options contradict each other, or a file is not usable
     */
    public static PatchserveClient connect(String server, ConnectionOptions options) {
        return new PatchserveClient(options.channel(server));
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

    /** Inspects one image. */
    public InferResponse infer(InferRequest request, Duration timeout) {
        try {
            return stub(timeout).infer(request);
        } catch (StatusRuntimeException failed) {
            throw PatchserveException.of(failed);
        }
    }

    /**
     * Builds or extends a reference from encoded images of undamaged items, sent one by one. Returns when it is in use.
     * If {@code images} throws, the load ends without a reference, and this method throws the same.
     */
    public Reference load(LoadReferenceRequest start, Iterator<ByteString> images, Duration timeout) {
        var first = LoadReferenceStreamRequest.newBuilder().setStart(start).build();
        var others = Iterators.transform(
                images, image -> LoadReferenceStreamRequest.newBuilder().setImage(image).build());
        // An early exit cancels the call: half of the images must not become the reference.
        try (var call = open(PatchCoreServiceGrpc.getLoadReferenceStreamMethod(), within(timeout))) {
            call.sendAll(Iterators.concat(Iterators.singletonIterator(first), others));
            var response = call.next();
            call.next(); // waits for the end: the call can still fail after its response
            return Objects.requireNonNull(response, "The server ended the load without a response.").getReference();
        }
    }

    /** As below, without a deadline. The config's frame_timeout limits each frame. */
    public void stream(StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle) {
        stream(config, frames, handle, CallOptions.DEFAULT);
    }

    /**
     * Inspects a stream of frames. {@code frames} is read in another thread, as fast as the server accepts frames. If
     * the stream ends earlier, this thread is interrupted. {@code handle} gets every message of the server: ready, one
     * result for each frame (also for failed ones), and notices. If either throws, the stream is cancelled, and this
     * method throws the same.
     */
    public void stream(
            StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle, Duration timeout) {
        stream(config, frames, handle, within(timeout));
    }

    private void stream(
            StreamConfig config, Iterator<Frame> frames, Consumer<InferStreamResponse> handle, CallOptions options) {
        var first = InferStreamRequest.newBuilder().setConfig(config).build();
        var others = Iterators.transform(frames, frame -> InferStreamRequest.newBuilder().setFrame(frame).build());
        var framesError = new AtomicReference<Throwable>(); // what `frames` threw; set before the call is cancelled
        try (var call = open(PatchCoreServiceGrpc.getInferStreamMethod(), options)) {
            var writer = new Thread(() -> {
                try {
                    call.sendAll(Iterators.concat(Iterators.singletonIterator(first), others));
                } catch (Throwable error) {
                    framesError.set(error);
                    call.cancel("the frames ended with an error", error);
                }
            }, "patchserve-stream");
            writer.setDaemon(true); // it may wait for a frame that never arrives
            writer.start();
            try {
                for (var response = call.next(); response != null; response = call.next()) {
                    handle.accept(response);
                }
            } catch (PatchserveException failed) {
                if (framesError.get() != null) {
                    Throwables.throwIfUnchecked(framesError.get());
                }
                throw failed;
            } finally {
                writer.interrupt(); // only now: the error that it causes is not an error of the stream
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
