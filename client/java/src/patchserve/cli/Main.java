package patchserve.cli;

import com.google.protobuf.ByteString;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.regex.Pattern;
import patchserve.client.PatchserveException;
import patchserve.v1.Frame;
import patchserve.v1.FrameResult;
import patchserve.v1.InferRequest;
import patchserve.v1.InferResponse;
import patchserve.v1.InferStreamResponse;
import patchserve.v1.LoadReferenceRequest;
import patchserve.v1.OutputOptions;
import patchserve.v1.ScoringProfile;
import patchserve.v1.StreamConfig;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ScopeType;

/** Loads a reference, inspects images and streams a folder. */
@Command(name = "patchserve-java", description = "A client for patchserve, a server for visual anomaly detection.")
final class Main {
    private static final Logger GRPC = Logger.getLogger("io.grpc"); // a field, so that it is not collected
    private static final Pattern IMAGE = Pattern.compile("(?i).+\\.(bmp|jpe?g|png|tiff?|webp)");

    @Option(names = {"-h", "--help"}, usageHelp = true, scope = ScopeType.INHERIT, description = "print this help")
    private boolean help;

    private Main() {}

    public static void main(String[] arguments) {
        // UTF-8 with every locale: messages of the server and file names are not always ASCII.
        System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8));
        GRPC.setLevel(Level.OFF); // its messages are also in exceptions
        var line = new CommandLine(new Main()).setExecutionExceptionHandler((error, command, parsed) -> {
            System.err.println(describe(error));
            return CommandLine.ExitCode.SOFTWARE;
        });
        System.exit(line.execute(arguments));
    }

    @Command(description = "Build a reference from the images in FOLDER.")
    void load(@Mixin Connection connection, @Parameters(paramLabel = "FOLDER") Path folder) throws IOException {
        try (var client = connection.open(connection.token())) {
            var start = LoadReferenceRequest.newBuilder()
                    .setReferenceId(connection.reference)
                    .setProfile(ScoringProfile.SCORING_PROFILE_VERDICT)
                    .build();
            var images = images(folder).stream().map(Main::content).iterator();
            var loaded = client.load(start, images, connection.timeout());
            System.out.println(loaded.getReferenceId() + ": " + loaded.getImageCount() + " images, revision "
                    + loaded.getRevision());
        }
    }

    @Command(description = "Inspect one image.")
    void infer(
            @Mixin Connection connection,
            @Option(names = "--overlay", paramLabel = "FILE", description = "the file for the overlay") Path overlay,
            @Parameters(paramLabel = "IMAGE") Path image) {
        try (var client = connection.open(connection.token())) {
            var request = InferRequest.newBuilder()
                    .setReferenceId(connection.reference)
                    .setImage(content(image))
                    .setOutput(output(overlay))
                    .build();
            var found = client.infer(request, connection.timeout());
            write(overlay, found);
            System.out.println(verdict(image.toString(), found));
        }
    }

    @Command(description = "Inspect all images in FOLDER in one stream.")
    void stream(
            @Mixin Connection connection,
            @Option(names = "--overlay", paramLabel = "FOLDER", description = "for overlays, NAME.png") Path overlay,
            @Parameters(paramLabel = "FOLDER") Path folder)
            throws IOException {
        try (var client = connection.open(connection.token())) {
            var config = StreamConfig.newBuilder()
                    .setReferenceId(connection.reference)
                    .setOutput(output(overlay))
                    .build();
            var frames = images(folder).stream().map(Main::frame).iterator();
            client.stream(config, frames, message -> handle(message, overlay), connection.timeout());
        }
    }

    @Command(description = "Run the test cases of tests/conformance.")
    void conformance(
            @Mixin Connection connection,
            @Option(names = "--cases", paramLabel = "FILE", required = true, description = "the test cases") Path cases,
            @Option(names = "--images", paramLabel = "FOLDER", required = true, description = "images") Path folder)
            throws IOException {
        try (var client = connection.open("")) { // each call has its own token
            new Conformance(client, folder).run(cases, connection.token());
        }
    }

    @Command(description = "Call until SIGTERM, as tests/conformance says.")
    void soak(
            @Mixin Connection connection,
            @Option(names = "--images", paramLabel = "FOLDER", required = true, description = "images") Path folder,
            @Option(names = "--rounds", paramLabel = "N", description = "end after N calls of each kind") Integer rounds)
            throws IOException, InterruptedException {
        try (var client = connection.open(connection.token())) {
            var pictures = images(folder).stream().map(Main::content).toList();
            new Soak(client, connection.reference, pictures, rounds == null ? Integer.MAX_VALUE : rounds).run();
        }
    }

    private static void handle(InferStreamResponse message, Path overlays) {
        if (message.hasNotice()) {
            System.err.println(message.getNotice().getMessage());
        }
        if (!message.hasResult()) {
            return;
        }
        FrameResult result = message.getResult();
        if (result.hasError()) {
            System.out.println(result.getFrameId() + ": " + describe(PatchserveException.ofFrame(result.getError())));
            return;
        }
        write(overlays == null ? null : overlays.resolve(result.getFrameId() + ".png"), result.getResponse());
        System.out.println(verdict(result.getFrameId(), result.getResponse()));
    }

    /** Says how many times the threshold the image reaches, rounded on the side of the verdict. */
    private static String verdict(String name, InferResponse found) {
        var anomaly = found.getAnomaly();
        double ratio = (double) anomaly.getRawScore() / anomaly.getRawThreshold();
        return anomaly.getIsAnomalous()
                ? String.format(Locale.ROOT, "%s: anomalous %.2f x", name, Math.max(ratio, 1.01))
                : String.format(Locale.ROOT, "%s: intact %.2f x", name, Math.min(ratio, 1));
    }

    private static String describe(Throwable error) {
        if (error instanceof PatchserveException failed) {
            String reason = failed.reason().isEmpty() ? "" : " " + failed.reason();
            return failed.code() + reason + ": " + failed.getMessage();
        }
        if (error instanceof NoSuchFileException missing) {
            return missing.getFile() + ": no such file";
        }
        if (error instanceof UncheckedIOException wrapped) {
            return describe(wrapped.getCause());
        }
        return error instanceof IllegalArgumentException ? error.getMessage() : error.toString();
    }

    private static OutputOptions output(Path overlay) {
        return OutputOptions.newBuilder().setOverlay(overlay != null).build();
    }

    private static void write(Path overlay, InferResponse found) {
        try {
            if (overlay != null) {
                Files.write(overlay, found.getOverlayPng().toByteArray());
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** The images of a folder, sorted by name. */
    private static List<Path> images(Path folder) throws IOException {
        try (var entries = Files.list(folder)) {
            return entries.filter(path -> IMAGE.matcher(path.getFileName().toString()).matches()).sorted().toList();
        }
    }

    private static Frame frame(Path image) {
        return Frame.newBuilder().setFrameId(image.getFileName().toString()).setImage(content(image)).build();
    }

    private static ByteString content(Path image) {
        try {
            return ByteString.copyFrom(Files.readAllBytes(image));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
