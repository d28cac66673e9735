package patchserve.cli;

import com.google.common.collect.Iterables;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.gson.annotations.SerializedName;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.util.JsonFormat;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;
import java.util.List;
import patchserve.client.ConnectionOptions;
import patchserve.client.PatchserveClient;
import patchserve.client.PatchserveException;
import patchserve.v1.ListLoadsRequest;

/** The conformance runner: runs test cases and prints their outcomes, as tests/conformance/README.md says. */
final class Conformance {
    private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private static final double TIMEOUT_S = 60;

    private record Suite(List<Case> cases) {}

    private record Case(
            String name,
            String rpc,
            JsonElement request,
            List<Step> steps,
            @SerializedName("timeout_s") Double timeoutS,
            String token) {}

    private record Step(
            JsonElement send,
            Integer times,
            Integer await,
            Case call,
            @SerializedName("until_loads") Integer untilLoads,
            boolean cancel) {}

    private final PatchserveClient client;
    private final Path images;

    Conformance(PatchserveClient client, Path images) {
        this.client = client;
        this.images = images;
    }

    void run(Path cases, String token) throws IOException {
        for (Case testCase : GSON.fromJson(Files.readString(cases), Suite.class).cases()) {
            var line = new JsonObject();
            line.addProperty("name", testCase.name());
            runCase(testCase, token).entrySet().forEach(entry -> line.add(entry.getKey(), entry.getValue()));
            System.out.println(GSON.toJson(line));
        }
    }

    private JsonObject runCase(Case testCase, String inheritedToken) throws IOException {
        String token = testCase.token() != null ? testCase.token() : inheritedToken;
        var onlyStep = new Step(testCase.request(), null, null, null, null, false);
        var steps = testCase.steps() != null ? testCase.steps() : List.of(onlyStep);
        var timeout = Duration.ofNanos((long) ((testCase.timeoutS() != null ? testCase.timeoutS() : TIMEOUT_S) * 1e9));
        var call = new AnyCall(client.channel(), testCase.rpc(), timeout, token);
        var nested = new JsonArray();
        for (Step step : steps) {
            if (step.send() != null) {
                send(call, step);
            } else if (step.await() != null) {
                call.awaitResponses(step.await());
            } else if (step.call() != null) {
                nested.add(runCase(step.call(), token));
            } else if (step.untilLoads() != null) {
                awaitLoads(step.untilLoads(), token);
            } else if (step.cancel()) {
                call.cancel();
            } else {
                throw new IllegalArgumentException("Unknown step in " + testCase.name() + ".");
            }
        }
        call.end();
        var outcome = new JsonObject();
        outcome.addProperty("code", call.error() == null ? "OK" : call.error().code().name());
        outcome.add("error", call.error() == null ? null : errorFields(call.error()));
        outcome.add("responses", call.responses());
        outcome.add("calls", nested);
        return outcome;
    }

    private void send(AnyCall call, Step step) throws IOException {
        var message = DynamicMessage.newBuilder(call.method().getInputType());
        JsonFormat.parser().merge(GSON.toJson(withImages(step.send())), message);
        var request = message.build();
        int times = step.times() != null ? step.times() : 1;
        while (times-- > 0 && call.send(request)) {}
    }

    private void awaitLoads(int count, String token) {
        var headers = MetadataUtils.newAttachHeadersInterceptor(ConnectionOptions.bearer(token));
        var request = ListLoadsRequest.getDefaultInstance();
        var timeout = Duration.ofSeconds((long) TIMEOUT_S);
        while (client.stub(timeout).withInterceptors(headers).listLoads(request).getLoadsCount() < count) {}
    }

    /** The same value, with "@NAME" replaced by the Base64 content of that image. */
    private JsonElement withImages(JsonElement value) throws IOException {
        if (value.isJsonObject()) {
            var result = new JsonObject();
            for (var entry : value.getAsJsonObject().entrySet()) {
                result.add(entry.getKey(), withImages(entry.getValue()));
            }
            return result;
        }
        if (value.isJsonArray()) {
            var result = new JsonArray();
            for (var item : value.getAsJsonArray()) {
                result.add(withImages(item));
            }
            return result;
        }
        boolean isName = value instanceof JsonPrimitive text && text.isString() && text.getAsString().startsWith("@");
        if (!isName) {
            return value;
        }
        byte[] content = Files.readAllBytes(images.resolve(value.getAsString().substring(1)));
        return new JsonPrimitive(Base64.getEncoder().encodeToString(content));
    }

    private static JsonObject errorFields(PatchserveException error) {
        var fields = new JsonArray();
        for (var violation : error.fieldViolations()) {
            fields.add(object("field", violation.getField()));
        }
        var preconditions = new JsonArray();
        for (var violation : error.preconditionViolations()) {
            preconditions.add(object("type", violation.getType(), "subject", violation.getSubject()));
        }
        var result = object("reason", error.reason(), "resource_name", error.resourceName());
        result.add("field_violations", fields);
        result.add("precondition_violations", preconditions);
        result.addProperty("retry_after_s", error.retryAfter().map(delay -> delay.toNanos() / 1e9).orElse(null));
        return result;
    }

    private static JsonObject object(String... namesAndValues) {
        var result = new JsonObject();
        for (var pair : Iterables.partition(List.of(namesAndValues), 2)) {
            result.addProperty(pair.get(0), pair.get(1));
        }
        return result;
    }
}
