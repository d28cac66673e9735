package patchserve.client;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall;
import io.grpc.ForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.regex.Pattern;
import patchserve.v1.DeleteReferenceResponse;
import patchserve.v1.ListLoadsRequest;
import patchserve.v1.LoadReferenceResponse;
import patchserve.v1.RestoreReferenceResponse;
import patchserve.v1.TuneReferenceResponse;

/**
 * Names the reference of each unary call in a header, so that a balancer can send it to a server that has it in memory,
 * and notes what these calls change.
 */
final class ReferenceHeader implements ClientInterceptor {
    static final String DEFAULT_ID = "default";
    private static final Metadata.Key<String> HEADER =
            Metadata.Key.of("x-patchserve-reference", Metadata.ASCII_STRING_MARSHALLER);
    /** The server rejects every other id. */
    private static final Pattern ID = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");

    private final OwnChanges own;

    ReferenceHeader(OwnChanges own) {
        this.own = own;
    }

    /** The id, or that of the contract for an empty one. */
    static String idOf(String referenceId) {
        return referenceId.isEmpty() ? DEFAULT_ID : referenceId;
    }

    /** Headers that name a reference; nothing for an empty or invalid id. */
    static Metadata of(String referenceId) {
        var headers = new Metadata();
        if (ID.matcher(referenceId).matches()) {
            headers.put(HEADER, referenceId);
        }
        return headers;
    }

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        ClientCall<Q, A> call = next.newCall(method, options);
        return method.getType() == MethodDescriptor.MethodType.UNARY ? new AddressedCall<>(call) : call;
    }

    /** The reference that a request is about; empty if it is about none, or about all. */
    private static String referenceOf(Object request) {
        if (!(request instanceof Message message)) {
            return "";
        }
        var field = message.getDescriptorForType().findFieldByName("reference_id");
        if (field == null) {
            return "";
        }
        String id = (String) message.getField(field);
        return id.isEmpty() && message instanceof ListLoadsRequest ? "" : idOf(id);
    }

    /** Starts with its message, because that names the reference. */
    private final class AddressedCall<Q, A> extends ForwardingClientCall.SimpleForwardingClientCall<Q, A> {
        private Listener<A> listener;
        private Metadata headers;
        private int requested;
        private boolean started;

        AddressedCall(ClientCall<Q, A> call) {
            super(call);
        }

        @Override
        public void start(Listener<A> receiver, Metadata sent) {
            listener = receiver;
            headers = sent;
        }

        @Override
        public void request(int count) {
            if (started) {
                super.request(count);
            } else {
                requested += count;
            }
        }

        @Override
        public void sendMessage(Q message) {
            startAbout(referenceOf(message));
            super.sendMessage(message);
        }

        @Override
        public void cancel(String reason, Throwable cause) {
            startAbout("");
            super.cancel(reason, cause);
        }

        private void startAbout(String referenceId) {
            if (started) {
                return;
            }
            started = true;
            headers.merge(of(referenceId));
            super.start(new Learning<>(listener, referenceId), headers);
            super.request(requested);
        }
    }

    private final class Learning<A> extends ForwardingClientCallListener.SimpleForwardingClientCallListener<A> {
        private final String referenceId;

        Learning(ClientCall.Listener<A> listener, String referenceId) {
            super(listener);
            this.referenceId = referenceId;
        }

        @Override
        public void onMessage(A response) {
            if (response instanceof LoadReferenceResponse loaded) {
                own.note(loaded.getReference());
            } else if (response instanceof TuneReferenceResponse tuned) {
                own.note(tuned.getReference());
            } else if (response instanceof RestoreReferenceResponse restored) {
                own.note(restored.getReference());
            } else if (response instanceof DeleteReferenceResponse) {
                own.forget(referenceId);
            }
            super.onMessage(response);
        }
    }
}
