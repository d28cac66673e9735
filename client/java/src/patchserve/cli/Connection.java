package patchserve.cli;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import patchserve.client.ConnectionOptions;
import patchserve.client.PatchserveClient;
import picocli.CommandLine.Option;

/** The options of every command. */
final class Connection {
    @Option(names = "--server", paramLabel = "HOST:PORT", description = "the server; default: ${DEFAULT-VALUE}")
    String server = "localhost:50051";

    @Option(names = "--reference", paramLabel = "ID", description = "the reference's id; default: ${DEFAULT-VALUE}")
    String reference = "default";

    @Option(names = "--timeout", paramLabel = "SECONDS", description = "the deadline; default: ${DEFAULT-VALUE}")
    double timeoutS = 600;

    @Option(names = "--tls", description = "use TLS; --ca and --cert imply it")
    boolean tls;

    @Option(names = "--ca", paramLabel = "FILE", description = "PEM: the authorities for the server's certificate")
    Path ca;

    @Option(names = "--cert", paramLabel = "FILE", description = "PEM: the client's certificate")
    Path cert;

    @Option(names = "--key", paramLabel = "FILE", description = "PEM: the key of --cert")
    Path key;

    @Option(names = "--token", paramLabel = "TOKEN", description = "the bearer token; default: PATCHSERVE_TOKEN")
    String token; // no default value of picocli, because the help would print it

    @Option(names = "--insecure-token", description = "allow sending the token unencrypted to another machine")
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
