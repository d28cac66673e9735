// A client of patchserve, a gRPC server for visual anomaly detection.
//
// Every method of the contract can be called, with its messages as generated (patchserve::v1); what is added is the way
// to a server, loads and streams that keep to flow control, and errors with their details.
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

/// Of a connection. As they are here: plain text without a token.
struct Options {
    /// Encryption; implied by the files.
    bool tls = false;
    /// A PEM file: who may sign the server's certificate; empty: the well-known authorities.
    std::string ca;
    /// PEM files: the client's own certificate, for a server that asks for one.
    std::string cert, key;
    /// The bearer token.
    std::string token;
    /// Send the token unencrypted to another machine, where something else protects the way.
    bool insecure_token = false;
};

/// A call's context with a deadline. Keep it where another thread may want to cancel the call: context->TryCancel().
std::unique_ptr<grpc::ClientContext> within(std::chrono::nanoseconds timeout);

/// A connection to a server. Safe for concurrent use. Every method throws Error for what the server says, and takes a
/// context of its own, which serves one call only.
class Client {
public:
    using Methods = v1::PatchCoreService::StubInterface;
    /// Gives the next encoded image, or nothing after the last.
    using NextImage = std::function<std::optional<std::string>()>;
    /// The same of frames. It may wait for one, and gives nothing as soon as the token asks to stop.
    using NextFrame = std::function<std::optional<v1::Frame>(std::stop_token)>;
    using Handle = std::function<void(const v1::InferStreamResponse&)>;

    /// Prepares a connection to HOST:PORT; the first call opens it. Throws std::invalid_argument for options that do
    /// not go together, std::system_error for files that cannot be read.
    explicit Client(const std::string& server, const Options& options = {});

    v1::InferResponse infer(grpc::ClientContext& context, const v1::InferRequest& request) const {
        return call(context, &Methods::Infer, request);
    }

    /// Builds or extends a reference from images of undamaged items, sent one by one; returns when it serves. What
    /// `next` throws cancels the load and is thrown on.
    v1::Reference load(grpc::ClientContext& context, const v1::LoadReferenceRequest& start,
                       const NextImage& next) const;

    /// Inspects frames as they come. `next` is called from another thread, as fast as the server takes frames.
    /// `handle` gets every message of the server: ready, a result for each frame, failed ones too, and notices. What
    /// either throws cancels the stream and is thrown on. Returns or throws only after both have returned for the last
    /// time.
    void stream(grpc::ClientContext& context, const v1::StreamConfig& config, const NextFrame& next,
                const Handle& handle) const;

    /// Any other method that takes one message: client.call(*within(1s), &Client::Methods::GetServerInfo, {}).
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

    /// For services beside this one, such as gRPC's health service. It carries no token.
    const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

private:
    void authorize(grpc::ClientContext& context) const;

    std::shared_ptr<grpc::Channel> channel_;
    std::unique_ptr<Methods> stub_;
    std::string token_;
};

}  // namespace patchserve
