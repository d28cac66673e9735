package patchserve.client;

import com.google.common.net.HostAndPort;
import com.google.common.net.InetAddresses;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.netty.NettySslContextChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Options of a connection. Default: plain text, without a token. */
public final class ConnectionOptions {
    private static final int MAX_MESSAGE_BYTES = 64 << 20;
    private static final String ALL_OF_A_NAME = "dns:///";

    private boolean tls;
    private Path ca;
    private Path cert;
    private Path key;
    private String token = "";
    private boolean insecureToken;

    /** Use TLS. The files imply it. */
    public ConnectionOptions tls(boolean encrypted) {
        tls = encrypted;
        return this;
    }

    /** A PEM file: the authorities for the server's certificate; null: the authorities that Java knows. */
    public ConnectionOptions ca(Path pem) {
        ca = pem;
        return this;
    }

    /** PEM files: the client's certificate and its key (PKCS 8), for a server that requires them; null: none. */
    public ConnectionOptions cert(Path certPem, Path keyPem) {
        cert = certPem;
        key = keyPem;
        return this;
    }

    /** The bearer token; empty: none. */
    public ConnectionOptions token(String bearer) {
        token = bearer;
        return this;
    }

    /** Allow sending the token unencrypted to another machine, for example inside a VPN. */
    public ConnectionOptions insecureToken(boolean allowed) {
        insecureToken = allowed;
        return this;
    }

    ManagedChannel channel(String server, ClientInterceptor interceptor) {
        boolean isSpread = server.startsWith(ALL_OF_A_NAME);
        HostAndPort address = HostAndPort.fromString(isSpread ? server.substring(ALL_OF_A_NAME.length()) : server);
        if (address.getHost().isEmpty() || !address.hasPort()) {
            throw new IllegalArgumentException("The server must be HOST:PORT or dns:///HOST:PORT, not " + server + ".");
        }
        if ((cert == null) != (key == null)) {
            throw new IllegalArgumentException("Set both the certificate and its key, or neither.");
        }
        boolean encrypted = tls || ca != null || cert != null;
        if (!token.isEmpty() && !encrypted && !insecureToken && !isLocal(address.getHost())) {
            throw new IllegalArgumentException(
                    "The token would be sent unencrypted to " + server + ": use TLS, or insecureToken.");
        }
        var credentials = encrypted
                ? NettySslContextChannelCredentials.create(AlpnContext.of(ca, cert, key))
                : InsecureChannelCredentials.create();
        var builder = Grpc.newChannelBuilderForAddress(address.getHost(), address.getPort(), credentials);
        if (isSpread) { // calls take turns on all addresses; grpc-java cannot ask each server whether it is ready
            builder = Grpc.newChannelBuilder(server, credentials).defaultLoadBalancingPolicy("round_robin");
        }
        builder.maxInboundMessageSize(MAX_MESSAGE_BYTES)
                .enableRetry()
                .defaultServiceConfig(ServiceConfig.read())
                // A request larger than these buffers is not retried: of one call, and of all.
                .perRpcBufferLimit(MAX_MESSAGE_BYTES)
                .retryBufferSize(4L * MAX_MESSAGE_BYTES)
                .intercept(interceptor)
                // Detects a lost peer within 80 s during a call.
                .keepAliveTime(60, TimeUnit.SECONDS)
                .keepAliveTimeout(20, TimeUnit.SECONDS);
        if (!token.isEmpty()) {
            builder.intercept(MetadataUtils.newAttachHeadersInterceptor(bearer(token)));
        }
        return builder.build();
    }

    /** A token as the header of a call; empty: no header. */
    public static Metadata bearer(String token) {
        var headers = new Metadata();
        if (!token.isEmpty()) {
            headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
        }
        return headers;
    }

    private static boolean isLocal(String host) {
        return host.equals("localhost")
                || InetAddresses.isInetAddress(host) && InetAddresses.forString(host).isLoopbackAddress();
    }
}
