package patchserve.client;

import com.google.common.base.Throwables;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.Optional;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.function.Consumer;
import java.util.function.Supplier;
import patchserve.v1.Frame;
import patchserve.v1.InferStreamRequest;
import patchserve.v1.InferStreamResponse;
import patchserve.v1.StreamConfig;

/** A stream of frames over several connections: frames without a result are sent again on the next one. */
final class FrameStream {
    /** A frame and its place in the whole stream. The server counts the frames of one connection. */
    private record Placed(long place, Frame frame) {}

    private final Supplier<Exchange<InferStreamRequest, InferStreamResponse>> open;
    private final StreamConfig config;
    private final Iterator<Frame> frames;
    private final Consumer<InferStreamResponse> handle;
    private final Backoff backoff;
    private final OwnChanges own;
    private final String referenceId;
    private String pinnedRevision; // made by this client a moment ago; asked for until a connection is open

    // Guarded by this object, which notifies of changes:
    private final Deque<Placed> unsent = new ArrayDeque<>();
    private SortedMap<Long, Placed> unanswered = new TreeMap<>(); // by sequence on this connection
    private Exchange<InferStreamRequest, InferStreamResponse> current; // null: no connection is open
    private Thread reader; // waits for a frame; it may outlive its connection
    private long sequence;
    private long readFrames;
    private boolean ended; // no frame follows
    private Throwable framesError; // what `frames` threw

    FrameStream(
            Supplier<Exchange<InferStreamRequest, InferStreamResponse>> open,
            StreamConfig config,
            Iterator<Frame> frames,
            Consumer<InferStreamResponse> handle,
            Backoff backoff,
            OwnChanges own) {
        this.open = open;
        this.config = config;
        this.frames = frames;
        this.handle = handle;
        this.backoff = backoff;
        this.own = own;
        referenceId = ReferenceHeader.idOf(config.getReferenceId());
        pinnedRevision = config.getExpectedRevision().isEmpty() ? own.revisionOf(referenceId) : "";
    }

    /** Runs to the end of the stream. */
    void run() {
        try {
            var delay = Optional.of(Duration.ZERO);
            while (delay.isPresent()) {
                pause(delay.get());
                delay = connection();
            }
        } finally {
            stopReading();
        }
    }

    /** One connection. Returns how long to wait before the next one; empty: the stream has ended. */
    private Optional<Duration> connection() {
        Thread writer = null;
        try (var call = open.get()) {
            writer = startWriter(call);
            for (var response = call.next(); response != null; response = call.next()) {
                handle.accept(placed(response));
            }
            throwFramesError();
            return Optional.empty();
        } catch (PatchserveException failed) {
            throwFramesError();
            return delayAfter(failed);
        } finally {
            close();
            interruptUnlessReading(writer);
        }
    }

    private synchronized Thread startWriter(Exchange<InferStreamRequest, InferStreamResponse> call) {
        new ArrayList<>(unanswered.values()).stream()
                .sorted((one, other) -> Long.compare(other.place(), one.place()))
                .forEach(unsent::addFirst);
        unanswered = new TreeMap<>();
        sequence = 0;
        current = call;
        var first = config.toBuilder();
        if (!pinnedRevision.isEmpty()) {
            first.setExpectedRevision(pinnedRevision);
        }
        var message = InferStreamRequest.newBuilder().setConfig(first).build();
        var writer = new Thread(() -> write(call, message), "patchserve-stream");
        writer.setDaemon(true); // it may wait for a frame that never arrives
        writer.start();
        return writer;
    }

    private void write(Exchange<InferStreamRequest, InferStreamResponse> call, InferStreamRequest first) {
        call.send(first);
        while (call.awaitReady()) {
            Frame frame = take(call);
            if (frame == null) {
                call.closeSend();
                return;
            }
            call.send(InferStreamRequest.newBuilder().setFrame(frame).build());
        }
    }

    /** Waits for the next frame of a connection. Null: it has none, or is not open any more. */
    private Frame take(Exchange<InferStreamRequest, InferStreamResponse> call) {
        while (true) {
            synchronized (this) {
                if (current != call || unsent.isEmpty() && ended) {
                    return null;
                }
                if (!unsent.isEmpty()) {
                    Placed taken = unsent.removeFirst();
                    unanswered.put(sequence++, taken);
                    return taken.frame();
                }
                if (reader != null) {
                    try {
                        wait();
                    } catch (InterruptedException interrupt) {
                        return null; // the connection has ended
                    }
                    continue;
                }
                reader = Thread.currentThread();
            }
            readFrame();
        }
    }

    private void readFrame() {
        Frame frame = null;
        Throwable error = null;
        try {
            frame = frames.hasNext() ? frames.next() : null;
        } catch (Throwable thrown) {
            error = thrown;
        }
        synchronized (this) {
            reader = null;
            if (frame != null) {
                unsent.addLast(new Placed(readFrames++, frame));
            } else {
                ended = true;
                framesError = error;
            }
            if (error != null && current != null) {
                current.cancel("the frames ended with an error", error);
            }
            notifyAll();
        }
    }

    /** The same message, with the frame's place in the whole stream. */
    private synchronized InferStreamResponse placed(InferStreamResponse response) {
        if (response.hasReady()) {
            pinnedRevision = "";
            if (unsent.isEmpty() && unanswered.isEmpty()) {
                backoff.reset();
            }
        }
        if (!response.hasResult()) {
            return response;
        }
        backoff.reset();
        Placed answered = unanswered.remove(response.getResult().getSequence());
        if (answered == null || answered.place() == response.getResult().getSequence()) {
            return response;
        }
        var result = response.getResult().toBuilder().setSequence(answered.place());
        return response.toBuilder().setResult(result).build();
    }

    private synchronized Optional<Duration> delayAfter(PatchserveException failed) {
        if (!pinnedRevision.isEmpty() && failed.reason().equals("REVISION_MISMATCH")) {
            own.forget(referenceId); // somebody else has changed it since
            pinnedRevision = "";
            return Optional.of(Duration.ZERO);
        }
        if (backoff.reconnects() && ended && unsent.isEmpty() && unanswered.isEmpty()) {
            return Optional.empty();
        }
        // An interrupt of this thread has cancelled the call.
        var delay = Thread.currentThread().isInterrupted() ? Optional.<Duration>empty() : backoff.delay(failed);
        if (delay.isEmpty()) {
            throw failed;
        }
        return delay;
    }

    private synchronized void throwFramesError() {
        if (framesError != null) {
            Throwables.throwIfUnchecked(framesError);
            throw new IllegalStateException(framesError);
        }
    }

    private synchronized void close() {
        current = null;
        notifyAll();
    }

    /** One that waits for a frame reads it for the next connection. */
    private synchronized void interruptUnlessReading(Thread writer) {
        if (writer != null && writer != reader) {
            writer.interrupt();
        }
    }

    private synchronized void stopReading() {
        if (reader != null) {
            reader.interrupt(); // only now: the error that it causes is not an error of the stream
        }
    }

    private static void pause(Duration delay) {
        try {
            Thread.sleep(delay.toMillis());
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt(); // the next connection is cancelled at once
        }
    }
}
