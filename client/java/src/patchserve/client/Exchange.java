package patchserve.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.Queue;
import java.util.function.BooleanSupplier;

/**
 * A call as a stream of requests and a stream of responses: in HTTP/2, every call is one. One thread may send while
 * another reads, and any thread may cancel. If a thread that waits here is interrupted, the call is cancelled.
 */
public final class Exchange<Q, A> implements AutoCloseable {
    private final Object lock = new Object();
    private final ClientCall<Q, A> call;
    private final Queue<A> responses = new ArrayDeque<>(); // at most one, because one is requested at a time
    private boolean sendingEnded; // the sending side is closed, or the call was cancelled
    private Status status; // null until the call ends
    private Metadata trailers;

    /** Opens the call. */
    public Exchange(Channel channel, MethodDescriptor<Q, A> method, CallOptions options, Metadata headers) {
        call = channel.newCall(method, options);
        call.start(new Listener(), headers);
        call.request(1);
    }

    /** Sends a message. Waits for flow control. Returns false if the call accepts no more messages. */
    public boolean send(Q message) {
        synchronized (lock) {
            if (!awaitReady()) {
                return false;
            }
            call.sendMessage(message);
            return true;
        }
    }

    /** Sends all messages and closes the sending side. Takes the next message when the connection accepts more. */
    public void sendAll(Iterator<? extends Q> messages) {
        while (awaitReady() && messages.hasNext()) {
            send(messages.next());
        }
        closeSend();
    }

    /** Waits until the connection accepts a message. Returns false if the call accepts no more. */
    boolean awaitReady() {
        synchronized (lock) {
            waitUntil(() -> status != null || sendingEnded || call.isReady());
            return status == null && !sendingEnded;
        }
    }

    /** Closes the sending side: there are no more messages. */
    public void closeSend() {
        synchronized (lock) {
            if (status == null && !sendingEnded) {
                sendingEnded = true;
                call.halfClose();
            }
        }
    }

    /**
     * Waits for the next response. Returns null after the last one.
     *
     * @throws PatchserveException if the call has failed
     */
    public A next() {
        synchronized (lock) {
            waitUntil(() -> status != null || !responses.isEmpty());
            if (!responses.isEmpty()) {
                call.request(1);
                return responses.remove();
            }
            if (!status.isOk()) {
                throw PatchserveException.of(status.asRuntimeException(trailers));
            }
            return null;
        }
    }

    /** Cancels the call, unless it has ended. */
    public void cancel(String reason, Throwable cause) {
        synchronized (lock) {
            if (status == null) {
                sendingEnded = true;
                call.cancel(reason, cause);
                lock.notifyAll();
            }
        }
    }

    /** Cancels the call, unless it has ended. */
    @Override
    public void close() {
        cancel("the caller has left", null);
    }

    private void waitUntil(BooleanSupplier reached) {
        boolean interrupted = false;
        while (!reached.getAsBoolean()) {
            try {
                lock.wait();
            } catch (InterruptedException interrupt) {
                interrupted = true; // the wait ends soon, because the call is cancelled
                cancel("the waiting thread was interrupted", interrupt);
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private final class Listener extends ClientCall.Listener<A> {
        @Override
        public void onReady() {
            synchronized (lock) {
                lock.notifyAll();
            }
        }

        @Override
        public void onMessage(A response) {
            synchronized (lock) {
                responses.add(response);
                lock.notifyAll();
            }
        }

        @Override
        public void onClose(Status ended, Metadata last) {
            synchronized (lock) {
                status = ended;
                trailers = last;
                lock.notifyAll();
            }
        }
    }
}
