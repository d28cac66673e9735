package patchserve.client;

import io.netty.buffer.ByteBufAllocator;
import io.netty.handler.codec.http2.Http2SecurityUtil;
import io.netty.handler.ssl.ApplicationProtocolNegotiator;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslProvider;
import io.netty.handler.ssl.SupportedCipherSuiteFilter;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLSessionContext;

/**
 * TLS of the JDK with HTTP/2 (ALPN). Debian's netty does not have the classes for this, and no native library that it
 * finds.
 */
final class AlpnContext extends SslContext {
    private static final String HTTP_2 = "h2";
    private final SslContext context;

    private AlpnContext(SslContext context) {
        this.context = context;
    }

    /** All paths are PEM files. {@code ca} null: the authorities that Java knows. {@code cert} null: no certificate. */
    static SslContext of(Path ca, Path cert, Path key) {
        var builder = SslContextBuilder.forClient()
                .sslProvider(SslProvider.JDK)
                .ciphers(Http2SecurityUtil.CIPHERS, SupportedCipherSuiteFilter.INSTANCE);
        if (ca != null) {
            builder.trustManager(ca.toFile());
        }
        if (cert != null) {
            builder.keyManager(cert.toFile(), key.toFile());
        }
        try {
            return new AlpnContext(builder.build());
        } catch (SSLException error) {
            throw new IllegalArgumentException(error.getMessage(), error);
        }
    }

    private static SSLEngine withHttp2(SSLEngine engine) {
        var parameters = engine.getSSLParameters();
        parameters.setApplicationProtocols(new String[] {HTTP_2});
        engine.setSSLParameters(parameters);
        return engine;
    }

    @Override
    public SSLEngine newEngine(ByteBufAllocator allocator) {
        return withHttp2(context.newEngine(allocator));
    }

    @Override
    public SSLEngine newEngine(ByteBufAllocator allocator, String host, int port) {
        return withHttp2(context.newEngine(allocator, host, port));
    }

    /**
     * The possible results. gRPC asks netty for the negotiated protocol, and netty returns null for engines that are
     * not its own. The result is what was offered, or nothing; without HTTP/2, the next step fails.
     */
    @Override
    @SuppressWarnings("deprecation") // internal to netty, but required of every SslContext
    public ApplicationProtocolNegotiator applicationProtocolNegotiator() {
        return () -> Arrays.asList(HTTP_2, null);
    }

    @Override
    public boolean isClient() {
        return true;
    }

    @Override
    public List<String> cipherSuites() {
        return context.cipherSuites();
    }

    @Override
    public long sessionCacheSize() {
        return context.sessionCacheSize();
    }

    @Override
    public long sessionTimeout() {
        return context.sessionTimeout();
    }

    @Override
    public SSLSessionContext sessionContext() {
        return context.sessionContext();
    }
}
