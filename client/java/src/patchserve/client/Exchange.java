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
 * A call as a stream of requests and a stream of responses, which is what all are on the wire. One thread may send
 * while another reads; any may cancel. An interrupt of a thread that waits here cancels the call.
 */
public final class Exchange<Q, A> implements AutoCloseable {
    private final Object lock = new Object();
    private final ClientCall<Q, A> call;
    private final Queue<A> responses = new ArrayDeque<>(); // one at most, since one is asked for at a time
    private boolean sendsNoMore; // the caller's side is closed, or the call has been cancelled
    private Status status; // null while the call is under way
    private Metadata trailers;

    /** Opens the call. */
    public Exchange(Channel channel, MethodDescriptor<Q, A> method, CallOptions options, Metadata headers) {
        call = channel.newCall(method, options);
        call.start(new Listener(), headers);
        call.request(1);
    }

    /** Waits while the connection takes no more, and sends. Says false where the call takes no more messages. */
    public boolean send(Q message) {
        synchronized (lock) {
            if (!awaitReady()) {
                return false;
            }
            call.sendMessage(message);
            return true;
        }
    }

    /** Sends them all, asking for the next when the connection takes more, and then closes this side. */
    public void sendAll(Iterator<? extends Q> messages) {
        while (awaitReady() && messages.hasNext()) {
            send(messages.next());
        }
        closeSend();
    }

    private boolean awaitReady() {
        synchronized (lock) {
            waitUntil(() -> status != null || sendsNoMore || call.isReady());
            return status == null && !sendsNoMore;
        }
    }

    /** Says that there are no more messages. */
    public void closeSend() {
        synchronized (lock) {
            if (status == null && !sendsNoMore) {
                sendsNoMore = true;
                call.halfClose();
            }
        }
    }

    /**
     * Waits for the next response; null after the last.
     *
     * @throws PatchserveException where the call has failed
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

    /** Ends the call, unless it has ended. */
    public void cancel(String why, Throwable cause) {
        synchronized (lock) {
            if (status == null) {
                sendsNoMore = true;
                call.cancel(why, cause);
                lock.notifyAll();
            }
        }
    }

    /** Cancels what is still under way. */
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
                interrupted = true; // what is waited for comes soon: the end of the call
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
