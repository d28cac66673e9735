package patchserve.cli;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import patchserve.client.ConnectionOptions;
import patchserve.client.PatchserveClient;
import picocli.CommandLine.Option;

/** The options that every command has. */
final class Connection {
    @Option(names = "--server", paramLabel = "HOST:PORT", description = "the server; left out: ${DEFAULT-VALUE}")
    String server = "localhost:50051";

    @Option(names = "--reference", paramLabel = "ID", description = "the reference's id; left out: ${DEFAULT-VALUE}")
    String reference = "default";

    @Option(names = "--timeout", paramLabel = "SECONDS", description = "for all of it; left out: ${DEFAULT-VALUE}")
    double timeoutS = 600;

    @Option(names = "--tls", description = "encrypt the connection; implied by the next two")
    boolean tls;

    @Option(names = "--ca", paramLabel = "FILE", description = "PEM: who may sign the server's certificate")
    Path ca;

    @Option(names = "--cert", paramLabel = "FILE", description = "PEM: the client's own certificate")
    Path cert;

    @Option(names = "--key", paramLabel = "FILE", description = "PEM: the key of --cert")
    Path key;

    @Option(names = "--token", paramLabel = "TOKEN", description = "the bearer token, or the variable PATCHSERVE_TOKEN")
    String token; // without a default of picocli's, which it would print

    @Option(names = "--insecure-token", description = "send the token unencrypted to another machine")
    boolean insecureToken;

    String token() {
        return token != null ? token : Objects.requireNonNullElse(System.getenv("PATCHSERVE_TOKEN"), "");
    }

    Duration timeout() {
        return Duration.ofMillis(Math.round(timeoutS * 1000));
    }

    PatchserveClient open(String bearer) {
        var options = new ConnectionOptions().tls(tls).ca(ca).cert(cert, key);
        return PatchserveClient.connect(server, options.token(bearer).insecureToken(insecureToken));
    }
}
