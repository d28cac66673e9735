package patchserve.cli;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.protobuf.ByteString;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import patchserve.client.PatchserveClient;
import patchserve.client.PatchserveException;
import patchserve.v1.Frame;
import patchserve.v1.FrameResult;
import patchserve.v1.GetReferenceRequest;
import patchserve.v1.GetServerInfoRequest;
import patchserve.v1.InferRequest;
import patchserve.v1.ListReferencesRequest;
import patchserve.v1.LoadReferenceRequest;
import patchserve.v1.StreamConfig;

/** A load generator for tests of a fleet. tests/conformance/README.md says what it does and prints. */
final class Soak {
    private static final String OWN_ID = "soak-java";
    private static final Duration TIMEOUT = Duration.ofSeconds(30);
    private static final Duration PAUSE = Duration.ofMillis(20);
    private static final Duration LOAD_PAUSE = Duration.ofMillis(500);
    private static final Duration RESUME_FOR = Duration.ofMinutes(1);
    private static final int MOST_FAILURES = 10;
    private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

    private interface Single {
        void call(ByteString image);
    }

    private static final class Count {
        int ok;
        int failed;
    }

    private record Line(String language, Map<String, Count> calls, List<String> failures) {}

    private final PatchserveClient client;
    private final String referenceId;
    private final List<ByteString> images;
    private final int rounds;
    private final CountDownLatch stopped = new CountDownLatch(1);
    private final CountDownLatch ended = new CountDownLatch(1);
    private final Map<String, Count> counts = new TreeMap<>(); // this and the next two are guarded by this object
    private final List<String> failures = new ArrayList<>();
    private boolean started;

    Soak(PatchserveClient client, String referenceId, List<ByteString> images, int rounds) {
        if (images.isEmpty()) {
            throw new IllegalArgumentException("The folder of --images has no images.");
        }
        this.client = client;
        this.referenceId = referenceId;
        this.images = images;
        this.rounds = rounds;
    }

    /** Makes calls until the rounds are done, or a signal ends the process; then that waits for the calls in progress. */
    void run() throws InterruptedException {
        var hook = new Thread(this::end);
        Runtime.getRuntime().addShutdownHook(hook);
        callAll();
        ended.countDown();
        if (stopped.getCount() > 0) {
            Runtime.getRuntime().removeShutdownHook(hook);
        }
    }

    private void end() {
        stopped.countDown();
        try {
            ended.await();
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
        }
        Runtime.getRuntime().halt(0); // a signal alone would make it 143
    }

    private void callAll() throws InterruptedException {
        var about = InferRequest.newBuilder().setReferenceId(referenceId);
        Map<String, Single> singles = Map.of(
                "Infer", image -> client.infer(about.clone().setImage(image).build(), TIMEOUT),
                "GetReference", image -> client.stub(TIMEOUT)
                        .getReference(GetReferenceRequest.newBuilder().setReferenceId(referenceId).build()),
                "ListReferences", image -> client.stub(TIMEOUT).listReferences(ListReferencesRequest.getDefaultInstance()),
                "GetServerInfo", image -> client.stub(TIMEOUT).getServerInfo(GetServerInfoRequest.getDefaultInstance()),
                "LoadReference", this::load);
        singles.keySet().forEach(kind -> counts.put(kind, new Count()));
        counts.put("InferStream", new Count());
        var threads = new ArrayList<Thread>();
        singles.forEach((kind, single) -> threads.add(new Thread(() -> repeat(kind, single), kind)));
        threads.add(new Thread(this::stream, "InferStream"));
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println(GSON.toJson(new Line("java", counts, failures)));
    }

    private synchronized void ok(String kind) {
        counts.get(kind).ok++;
        if (!started && counts.values().stream().allMatch(count -> count.ok > 0)) {
            started = true;
            System.out.println("{\"started\": true}");
        }
    }

    private synchronized void failed(String kind, String what) {
        counts.get(kind).failed++;
        if (failures.size() < MOST_FAILURES) {
            failures.add(kind + ": " + what);
        }
    }

    private static String described(RuntimeException error) {
        var failed = error instanceof StatusRuntimeException status ? PatchserveException.of(status) : error;
        return failed instanceof PatchserveException known
                ? known.code() + " " + known.reason() + ": " + known.getMessage()
                : failed.toString();
    }

    private ByteString image(int round) {
        return images.get(round % images.size());
    }

    private boolean goesOn(int round) {
        return round < rounds && stopped.getCount() > 0;
    }

    private void pause(Duration length) {
        try {
            stopped.await(length.toMillis(), TimeUnit.MILLISECONDS);
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
        }
    }

    private void repeat(String kind, Single single) {
        for (int round = 0; goesOn(round); round++) {
            try {
                single.call(image(round));
                ok(kind);
            } catch (RuntimeException error) {
                failed(kind, described(error));
            }
            pause(kind.equals("LoadReference") && rounds == Integer.MAX_VALUE ? LOAD_PAUSE : PAUSE);
        }
    }

    private void load(ByteString image) {
        var request = LoadReferenceRequest.newBuilder().setReferenceId(OWN_ID).addImages(image).build();
        String revision = client.stub(TIMEOUT).loadReference(request).getReference().getRevision();
        var found = client.infer(InferRequest.newBuilder().setReferenceId(OWN_ID).setImage(image).build(), TIMEOUT);
        if (!found.getReferenceRevision().equals(revision)) {
            throw new IllegalStateException(found.getReferenceRevision() + " answered, not " + revision);
        }
    }

    private final class Frames implements Iterator<Frame> {
        private int sent;

        @Override
        public boolean hasNext() {
            if (sent > 0) {
                pause(PAUSE);
            }
            return goesOn(sent);
        }

        @Override
        public Frame next() {
            int number = sent++;
            return Frame.newBuilder().setFrameId(Integer.toString(number)).setImage(image(number)).build();
        }
    }

    private void stream() {
        var frames = new Frames();
        var results = new int[1];
        try {
            var config = StreamConfig.newBuilder().setReferenceId(referenceId).build();
            client.resumingStream(config, frames, message -> {
                if (message.hasResult()) {
                    check(message.getResult(), results[0]++);
                }
            }, RESUME_FOR);
            if (results[0] != frames.sent) {
                failed("InferStream", results[0] + " results for " + frames.sent + " frames");
            }
        } catch (RuntimeException error) {
            failed("InferStream", described(error));
        }
    }

    private void check(FrameResult result, int expected) {
        boolean isRight = result.getFrameId().equals(Integer.toString(expected)) && result.getSequence() == expected;
        if (isRight && result.hasResponse()) {
            ok("InferStream");
        } else {
            failed("InferStream", "frame " + result.getFrameId() + " as " + result.getSequence() + ", "
                    + result.getError().getMessage() + ", for " + expected);
        }
    }
}
