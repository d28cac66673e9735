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

/// A context with a deadline, for one call. Another thread can cancel the call with context->TryCancel().
std::unique_ptr<grpc::ClientContext> within(std::chrono::nanoseconds timeout);

/// A connection to a server. It is safe for concurrent use. Every method throws Error if the call fails. Every call
/// needs a new context.
class Client {
public:
    using Methods = v1::PatchCoreService::StubInterface;
    /// Returns the next encoded image, or nothing after the last one.
    using NextImage = std::function<std::optional<std::string>()>;
    /// Returns the next frame, or nothing after the last one. It can wait for a frame, but must return nothing when the
    /// token requests a stop.
    using NextFrame = std::function<std::optional<v1::Frame>(std::stop_token)>;
    using Handle = std::function<void(const v1::InferStreamResponse&)>;

    /// Prepares a connection to HOST:PORT; the first call opens it. Throws std::invalid_argument if options contradict
    /// each other, std::system_error if a file cannot be read.
    explicit Client(const std::string& server, const Options& options = {});

    v1::InferResponse infer(grpc::ClientContext& context, const v1::InferRequest& request) const {
        return call(context, &Methods::Infer, request);
    }

    /// Builds or extends a reference from images of undamaged items, sent one by one. Returns when it is in use. If
    /// `next` throws, the load is cancelled and the exception is rethrown.
    v1::Reference load(grpc::ClientContext& context, const v1::LoadReferenceRequest& start,
                       const NextImage& next) const;

    /// Inspects a stream of frames. `next` is called from another thread, as fast as the server accepts frames.
    /// `handle` gets every message of the server: ready, one result for each frame (also for failed ones), and notices.
    /// If either throws, the stream is cancelled and the exception is rethrown. Neither runs after this function ends.
    void stream(grpc::ClientContext& context, const v1::StreamConfig& config, const NextFrame& next,
                const Handle& handle) const;

    /// Calls any other unary method: client.call(*within(1s), &Client::Methods::GetServerInfo, {}).
    template <class Request, class Response>
    Response call(grpc::ClientContext& context,
                  grpc::Status (Methods::*method)(grpc::ClientContext*, const Request&, Response*),
                  const std::type_identity_t<Request>& request) const {
        authorize(context);
        Response response;
        if (const grpc::Status status = (stub_.get()->*method)(&context, request, &response); !status.ok()) {
            throw Error(status);
        }
        return response;
    }

    /// For other services, such as gRPC's health service. It does not send the token.
    const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

private:
    void authorize(grpc::ClientContext& context) const;

    std::shared_ptr<grpc::Channel> channel_;
    std::unique_ptr<Methods> stub_;
    std::string token_;
};

}  // namespace patchserve
