import com.google.protobuf.ByteString;
import io.grpc.Status;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import patchserve.client.PatchserveClient;
import patchserve.client.PatchserveException;
import patchserve.v1.Frame;
import patchserve.v1.GetReferenceRequest;
import patchserve.v1.LoadReferenceRequest;
import patchserve.v1.StreamConfig;

/** What callers of the client for Java do to it while a call is under way: {@code SERVER IMAGE}. */
class JavaCallbacks {
    private static final Duration SOON = Duration.ofSeconds(60);
    private static final StreamConfig CONFIG = StreamConfig.newBuilder().setReferenceId("cards").build();

    private static PatchserveClient client;
    private static ByteString image;

    public static void main(String[] arguments) throws Exception {
        image = ByteString.copyFrom(Files.readAllBytes(Path.of(arguments[1])));
        client = PatchserveClient.connect(arguments[0]);
        client.load(start("cards"), List.of(image).iterator(), SOON);
        framesThatThrow();
        handlerThatThrows();
        streamThatEndsWhileFramesAreAwaited();
        deadline();
        interrupt();
        framesAreAskedForAsTheyAreTaken();
        imagesThatThrow();
        loadThatEndsEarly();
        close();
    }

    private static void framesThatThrow() {
        var mine = new IllegalStateException("the camera has gone");
        var left = new AtomicInteger(3);
        var frames = endless(() -> {
            if (left.getAndDecrement() == 0) {
                throw mine;
            }
            return frame();
        });
        check(mine == thrown(() -> client.stream(CONFIG, frames, message -> {})));
    }

    private static void handlerThatThrows() throws InterruptedException {
        var mine = new IllegalStateException("the disk is full");
        var interrupted = new CountDownLatch(1);
        check(mine == thrown(() -> client.stream(CONFIG, endless(() -> never(interrupted)), message -> {
            throw mine;
        })));
        check(interrupted.await(60, TimeUnit.SECONDS));
    }

    private static void streamThatEndsWhileFramesAreAwaited() throws InterruptedException {
        var interrupted = new CountDownLatch(1);
        var config = StreamConfig.newBuilder().setReferenceId("nobody").build();
        var failed = failure(() -> client.stream(config, endless(() -> never(interrupted)), message -> {}));
        check(failed.code() == Status.Code.NOT_FOUND && failed.reason().equals("REFERENCE_NOT_FOUND"));
        check(interrupted.await(60, TimeUnit.SECONDS));
    }

    private static void deadline() {
        var frames = endless(() -> never(new CountDownLatch(1)));
        var failed = failure(() -> client.stream(CONFIG, frames, message -> {}, Duration.ofMillis(200)));
        check(failed.code() == Status.Code.DEADLINE_EXCEEDED);
    }

    private static void interrupt() {
        var frames = endless(() -> never(new CountDownLatch(1)));
        var failed = failure(
                () -> client.stream(CONFIG, frames, message -> Thread.currentThread().interrupt()));
        check(failed.code() == Status.Code.CANCELLED);
        check(Thread.interrupted());
    }

    /** The rest of 300 frames of a megabyte waits here while the server works, not in memory. */
    private static void framesAreAskedForAsTheyAreTaken() {
        var large = Frame.newBuilder().setImage(image.concat(ByteString.copyFrom(new byte[1 << 20]))).build();
        var asked = new AtomicInteger();
        var answered = new AtomicInteger();
        var lead = new AtomicInteger();
        var frames = endless(() -> asked.incrementAndGet() > 300 ? null : large);
        client.stream(CONFIG, frames, message -> {
            if (message.hasResult()) {
                answered.incrementAndGet();
            }
            lead.accumulateAndGet(asked.get() - answered.get(), Math::max);
        });
        check(answered.get() == 300);
        check(lead.get() < 100);
    }

    private static void imagesThatThrow() {
        var mine = new IllegalStateException("the archive is damaged");
        var left = new AtomicInteger(2);
        Iterator<ByteString> images = endless(() -> {
            if (left.getAndDecrement() == 0) {
                throw mine;
            }
            return image;
        });
        check(mine == thrown(() -> client.load(start("half"), images, SOON)));
        var request = GetReferenceRequest.newBuilder().setReferenceId("half").build();
        var failed = failure(() -> {
            try {
                client.stub(SOON).getReference(request);
            } catch (io.grpc.StatusRuntimeException error) {
                throw PatchserveException.of(error);
            }
        });
        check(failed.code() == Status.Code.NOT_FOUND && failed.resourceName().equals("half"));
    }

    private static void loadThatEndsEarly() {
        var failed = failure(() -> client.load(start("not an id"), endless(() -> image), SOON));
        check(failed.code() == Status.Code.INVALID_ARGUMENT);
        check(failed.fieldViolations().get(0).getField().equals("reference_id"));
    }

    private static void close() {
        var frames = endless(() -> never(new CountDownLatch(1)));
        var failed = failure(() -> client.stream(CONFIG, frames, message -> client.close()));
        check(failed.code() == Status.Code.UNAVAILABLE);
    }

    private static LoadReferenceRequest start(String id) {
        return LoadReferenceRequest.newBuilder().setReferenceId(id).build();
    }

    private static Frame frame() {
        return Frame.newBuilder().setImage(image).build();
    }

    /** A frame that does not come. */
    private static Frame never(CountDownLatch interrupted) {
        try {
            new CountDownLatch(1).await();
            return null;
        } catch (InterruptedException interrupt) {
            interrupted.countDown();
            throw new IllegalStateException(interrupt);
        }
    }

    /** What the supplier gives, until it gives null. */
    private static <T> Iterator<T> endless(Supplier<T> supplier) {
        return java.util.stream.Stream.generate(supplier).takeWhile(item -> item != null).iterator();
    }

    private static PatchserveException failure(Runnable call) {
        return (PatchserveException) thrown(call);
    }

    private static RuntimeException thrown(Runnable call) {
        try {
            call.run();
        } catch (RuntimeException error) {
            return error;
        }
        throw new AssertionError("nothing was thrown");
    }

    private static void check(boolean holds) {
        if (!holds) {
            throw new AssertionError("it does not hold");
        }
    }
}
