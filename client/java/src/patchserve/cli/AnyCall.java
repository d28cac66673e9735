package patchserve.cli;

import com.google.gson.JsonArray;
import com.google.gson.JsonParser;
import com.google.protobuf.Descriptors;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.ErrorDetailsProto;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.grpc.health.v1.HealthProto;
import io.grpc.protobuf.ProtoUtils;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import patchserve.client.ConnectionOptions;
import patchserve.client.Exchange;
import patchserve.client.PatchserveException;

/** A call of any method by its name. Its responses are read all the while. */
final class AnyCall {
    private static final JsonFormat.Printer PRINTER = JsonFormat.printer()
            .omittingInsignificantWhitespace()
            .usingTypeRegistry(JsonFormat.TypeRegistry.newBuilder()
                    .add(ErrorDetailsProto.getDescriptor().getMessageTypes())
                    .build());

    private final Descriptors.MethodDescriptor method;
    private final Exchange<DynamicMessage, DynamicMessage> exchange;
    private final Thread reading = new Thread(this::read, "reading");
    private final JsonArray responses = new JsonArray();
    private PatchserveException error;
    private boolean ended;

    AnyCall(Channel channel, String rpc, Duration timeout, String token) {
        var file = rpc.equals("Check") ? HealthProto.getDescriptor() : patchserve.v1.Service.getDescriptor();
        method = file.getServices().get(0).findMethodByName(rpc);
        var onTheWire = MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
                .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
                .setFullMethodName(MethodDescriptor.generateFullMethodName(method.getService().getFullName(), rpc))
                .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
                .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
                .build();
        var options = CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
        exchange = new Exchange<>(channel, onTheWire, options, ConnectionOptions.bearer(token));
        reading.setDaemon(true); // where the runner fails, nothing waits for it
        reading.start();
    }

    private void read() {
        try {
            for (var response = exchange.next(); response != null; response = exchange.next()) {
                add(response);
            }
        } catch (PatchserveException failed) {
            error = failed;
        } finally {
            synchronized (this) {
                ended = true;
                notifyAll();
            }
        }
    }

    private synchronized void add(DynamicMessage response) {
        try {
            responses.add(JsonParser.parseString(PRINTER.print(response)));
        } catch (InvalidProtocolBufferException unknown) {
            throw new IllegalStateException("A detail that this runner does not know.", unknown);
        }
        notifyAll();
    }

    Descriptors.MethodDescriptor method() {
        return method;
    }

    /** Waits where flow control says so. Says false where the call takes no more. */
    boolean send(DynamicMessage request) {
        return exchange.send(request);
    }

    /** Waits until so many responses have come in all, or the call has ended. */
    synchronized void awaitResponses(int count) {
        while (!ended && responses.size() < count) {
            try {
                wait();
            } catch (InterruptedException interrupt) {
                throw new IllegalStateException(interrupt);
            }
        }
    }

    void cancel() {
        exchange.cancel("a step of the case", null);
    }

    /** Closes this side and waits for the end; then the responses and the error stay. */
    void end() {
        exchange.closeSend();
        awaitResponses(Integer.MAX_VALUE);
    }

    JsonArray responses() {
        return responses;
    }

    /** What the server said; null where it did what was asked. */
    PatchserveException error() {
        return error;
    }
}
