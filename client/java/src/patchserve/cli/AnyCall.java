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

/** A call of any method, by name. A thread reads the responses. */
final class AnyCall {
    private static final JsonFormat.Printer PRINTER = JsonFormat.printer()
            .omittingInsignificantWhitespace()
            .usingTypeRegistry(JsonFormat.TypeRegistry.newBuilder()
                    .add(ErrorDetailsProto.getDescriptor().getMessageTypes())
                    .build());

    private final Descriptors.MethodDescriptor method;
    private final Exchange<DynamicMessage, DynamicMessage> exchange;
    private final Thread reader = new Thread(this::read, "reader");
    private final JsonArray responses = new JsonArray();
    private PatchserveException error;
    private boolean ended;

    AnyCall(Channel channel, String rpc, Duration timeout, String token) {
        var file = rpc.equals("Check") ? HealthProto.getDescriptor() : patchserve.v1.Service.getDescriptor();
        method = file.getServices().get(0).findMethodByName(rpc);
        var descriptor = MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
                .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
                .setFullMethodName(MethodDescriptor.generateFullMethodName(method.getService().getFullName(), rpc))
                .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
                .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
                .build();
        var options = CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
        exchange = new Exchange<>(channel, descriptor, options, ConnectionOptions.bearer(token));
        reader.setDaemon(true); // if the runner fails, the process does not wait for it
        reader.start();
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
            throw new IllegalStateException("Unknown type of an error detail.", unknown);
        }
        notifyAll();
    }

    Descriptors.MethodDescriptor method() {
        return method;
    }

    /** Sends a message. Waits for flow control. Returns false if the call accepts no more messages. */
    boolean send(DynamicMessage request) {
        return exchange.send(request);
    }

    /** Waits until there are this many responses in total, or the call has ended. */
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

    /** Closes the sending side and waits for the end. Afterwards, the responses and the error are final. */
    void end() {
        exchange.closeSend();
        awaitResponses(Integer.MAX_VALUE);
    }

    JsonArray responses() {
        return responses;
    }

    /** The error of the call; null if it succeeded. */
    PatchserveException error() {
        return error;
    }
}
