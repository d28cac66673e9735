// A client for patchserve, a gRPC server for visual anomaly detection.
//
// It calls every method of the contract with the generated messages (patchserve::v1). It adds the connection, loads and
// streams with flow control, and errors with their details.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <type_traits>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <patchserve/v1/service.grpc.pb.h>

#include "patchserve/error.h"

namespace patchserve {

/// Options of a connection. Default: plain text without a token.
struct Options {
    /// Use TLS. The files imply it.
    bool tls = false;
    /// A PEM file: the authorities for the server's certificate. Empty: well-known ones.
    std::string ca;
    /// PEM files: the client's certificate and key, for a server that requires them.
    std::string cert, key;
    /// The bearer token.
    std::string token;
    /// Allow sending the token unencrypted to another machine, for example inside a VPN.
    bool insecure_token = false;
};

class OwnChanges;

/// How a stream is resumed.
struct Resumption {
    /// The longest time without a result, after which it stops.
    std::chrono::nanoseconds resume_for;
    /// Ends the stream early, from any thread.
    std::stop_token stop = {};
};

/// A context with a deadline, for one call. Another thread can cancel the call with context->TryCancel().
std::unique_ptr<grpc::ClientContext> within(std::chrono::nanoseconds timeout);

/// A connection to a server. It is safe for concurrent use. Every method throws Error if the call fails. Every call
/// needs a new context.
///
/// Unary calls that are safe to repeat are retried while a server is UNAVAILABLE, within their deadline. For 10 s after
/// this client has changed a reference, its calls ask for its own revision, so that every server of a fleet has it.
class Client {
public:
    using Methods = v1::PatchCoreService::StubInterface;
    /// Returns the next encoded image, or nothing after the last one.
    using NextImage = std::function<std::optional<std::string>()>;
    /// Returns the next frame, or nothing after the last one. It can wait for a frame, but must return nothing when the
    /// token requests a stop.
    using NextFrame = std::function<std::optional<v1::Frame>(std::stop_token)>;
    using Handle = std::function<void(const v1::InferStreamResponse&)>;

    /// Prepares a connection to HOST:PORT, or to all servers that a name has, dns:///HOST:PORT; the first call opens it.
    /// Throws std::invalid_argument if options contradict each other, std::system_error if a file cannot be read.
    explicit Client(const std::string& server, const Options& options = {});
    Client(Client&&) noexcept;
    ~Client();

    v1::InferResponse infer(grpc::ClientContext& context, const v1::InferRequest& request) const {
        return call(context, &Methods::Infer, request);
    }

    /// Builds or extends a reference from images of undamaged items, sent one by one and once. Returns when it is in use.
    /// If `next` throws, the load is cancelled and the exception is rethrown. A few images that replace a reference can
    /// be sent with call(..., &Methods::LoadReference, ...), which is retried.
    v1::Reference load(grpc::ClientContext& context, const v1::LoadReferenceRequest& start,
                       const NextImage& next) const;

    /// Inspects a stream of frames. `next` is called from another thread, as fast as the server accepts frames.
    /// `handle` gets every message of the server: ready, one result for each frame (also for failed ones), and notices.
    /// If either throws, the stream is cancelled and the exception is rethrown. Neither runs after this function ends.
    void stream(grpc::ClientContext& context, const v1::StreamConfig& config, const NextFrame& next,
                const Handle& handle) const;

    /// Like the other `stream`, without a deadline; connects again if the connection is lost or the server drains, and
    /// sends frames without a result again. Each connection has its own ready.
    void stream(const Resumption& resumption, const v1::StreamConfig& config, const NextFrame& next,
                const Handle& handle) const;

    /// Calls any other unary method: client.call(*within(1s), &Client::Methods::GetServerInfo, {}).
    template <class Request, class Response>
    Response call(grpc::ClientContext& context,
                  grpc::Status (Methods::*method)(grpc::ClientContext*, const Request&, Response*),
                  const std::type_identity_t<Request>& request) const {
        const std::string reference_id = about(request);
        prepare(context, reference_id);
        Response response;
        grpc::Status status;
        if (const std::string revision = pinned_revision(request, reference_id); revision.empty()) {
            status = (stub_.get()->*method)(&context, request, &response);
        } else if constexpr (is_pinned<Request>) {
            Request pinned = request;
            pinned.set_expected_revision(revision);
            status = (stub_.get()->*method)(&context, pinned, &response);
            if (forgets(status, reference_id)) {  // a context is for one call: TryCancel does not reach this one
                grpc::ClientContext again;
                again.set_deadline(context.deadline());
                prepare(again, reference_id);
                status = (stub_.get()->*method)(&again, request, &response);
            }
        }
        if (!status.ok()) {
            throw Error(status);
        }
        if constexpr (requires { request.expected_revision(), response.reference(); }) {
            note(response.reference());
        } else if constexpr (std::is_same_v<Request, v1::DeleteReferenceRequest>) {
            forget(reference_id);
        }
        return response;
    }

    /// For other services, such as gRPC's health service. It does not send the token.
    const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

private:
    /// Calls that go to the revision that this client has made. For LoadReference it belongs to an APPEND.
    template <class Request>
    static constexpr bool is_pinned =
        requires(Request request) { request.set_expected_revision(std::string()); } &&
        !std::is_same_v<Request, v1::LoadReferenceRequest>;

    /// The reference that a request is about; empty if it is about none, or about all.
    template <class Request>
    static std::string about(const Request& request) {
        if constexpr (requires { request.reference_id(); }) {
            const bool means_all = std::is_same_v<Request, v1::ListLoadsRequest>;
            return request.reference_id().empty() && !means_all ? "default" : request.reference_id();
        } else {
            return {};
        }
    }

    /// The revision to add to a request; empty: none.
    template <class Request>
    std::string pinned_revision(const Request& request, const std::string& reference_id) const {
        if constexpr (is_pinned<Request>) {
            return request.expected_revision().empty() ? own_revision(reference_id) : std::string();
        } else {
            return {};
        }
    }

    void prepare(grpc::ClientContext& context, const std::string& reference_id) const;
    std::string own_revision(const std::string& reference_id) const;
    void note(const v1::Reference& reference) const;
    void forget(const std::string& reference_id) const;
    bool forgets(const grpc::Status& status, const std::string& reference_id) const;

    std::shared_ptr<grpc::Channel> channel_;
    std::unique_ptr<Methods> stub_;
    std::string token_;
    std::unique_ptr<OwnChanges> own_;
};

}  // namespace patchserve
