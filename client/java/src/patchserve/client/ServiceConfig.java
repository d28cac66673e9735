package patchserve.client;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** The service config of gRPC that all clients share: which calls are retried. */
final class ServiceConfig {
    private static final String FILE = "service_config.json";

    private ServiceConfig() {}

    static Map<String, ?> read() {
        try (var file = new InputStreamReader(
                ServiceConfig.class.getResourceAsStream(FILE), StandardCharsets.UTF_8)) {
            return new Gson().fromJson(file, new TypeToken<Map<String, Object>>() {}.getType());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
