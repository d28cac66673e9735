package patchserve.client;

import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;

/** Growing delays between the connections of a stream, for a limited time without progress. Zero: no second one. */
final class Backoff {
    private static final Duration FIRST_DELAY = Duration.ofMillis(100);
    private static final Duration LONGEST_DELAY = Duration.ofSeconds(2);
    /** A proxy that has lost the server resets the stream; a server that stops discards calls. Both give no reason. */
    private static final Set<Status.Code> RESET =
            Set.of(Status.Code.CANCELLED, Status.Code.INTERNAL, Status.Code.UNKNOWN);

    private final Duration resumeFor;
    private Duration nextDelay = FIRST_DELAY;
    private Long lostAtNanos; // null: the connection works

    Backoff(Duration resumeFor) {
        if (resumeFor.isNegative()) {
            throw new IllegalArgumentException("resumeFor must not be negative: " + resumeFor);
        }
        this.resumeFor = resumeFor;
    }

    boolean reconnects() {
        return !resumeFor.isZero();
    }

    /** The stream made progress: start again with a short delay and the full time. */
    void reset() {
        lostAtNanos = null;
        nextDelay = FIRST_DELAY;
    }

    /**
     * How long to wait before the next connection, at least as long as the server asks for; empty: the error is final,
     * or the time passes before.
     */
    Optional<Duration> delay(PatchserveException error) {
        if (lostAtNanos == null) {
            lostAtNanos = System.nanoTime();
        }
        var remaining = resumeFor.minusNanos(System.nanoTime() - lostAtNanos);
        var told = error.retryAfter().orElse(Duration.ZERO);
        boolean isOver = remaining.isNegative() || remaining.isZero() || told.compareTo(remaining) > 0;
        if (isOver || !isConnectionLoss(error)) {
            return Optional.empty();
        }
        // Jitter, so that the streams of a lost server do not all connect at the same moment.
        double share = ThreadLocalRandom.current().nextDouble(0.75, 1.25);
        var delay = longer(times(nextDelay, share), times(told, Math.max(share, 1)));
        nextDelay = nextDelay.multipliedBy(2).compareTo(LONGEST_DELAY) < 0 ? nextDelay.multipliedBy(2) : LONGEST_DELAY;
        return Optional.of(delay.compareTo(remaining) < 0 ? delay : remaining);
    }

    private static boolean isConnectionLoss(PatchserveException error) {
        boolean isReset = RESET.contains(error.code()) && error.reason().isEmpty();
        return isReset || error.code() == Status.Code.UNAVAILABLE || error.retryAfter().isPresent();
    }

    private static Duration times(Duration delay, double share) {
        return Duration.ofNanos((long) Math.ceil(delay.toNanos() * share));
    }

    private static Duration longer(Duration one, Duration other) {
        return one.compareTo(other) > 0 ? one : other;
    }
}
