#include "patchserve/client.h"

#include <exception>
#include <thread>
#include <utility>

#include "channel.h"

namespace patchserve {
namespace {

using Stream = grpc::ClientReaderWriterInterface<v1::InferStreamRequest, v1::InferStreamResponse>;

void write(Stream& call, const v1::StreamConfig& config, const Client::NextFrame& next, const std::stop_token& stop) {
    v1::InferStreamRequest message;
    *message.mutable_config() = config;
    while (call.Write(message) && !stop.stop_requested()) {  // false: the call has ended, Finish returns the reason
        std::optional<v1::Frame> frame = next(stop);
        if (!frame) {
            break;
        }
        *message.mutable_frame() = std::move(*frame);
    }
    call.WritesDone();
}

}  // namespace

std::unique_ptr<grpc::ClientContext> within(std::chrono::nanoseconds timeout) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + timeout);
    return context;
}

Client::Client(const std::string& server, const Options& options)
    : channel_(open_channel(server, options)), stub_(v1::PatchCoreService::NewStub(channel_)), token_(options.token) {}

// As a plain header: gRPC's call credentials refuse to send a token to a sidecar that adds TLS.
void Client::authorize(grpc::ClientContext& context) const {
    if (!token_.empty()) {
        context.AddMetadata("authorization", "Bearer " + token_);
    }
}

v1::Reference Client::load(grpc::ClientContext& context, const v1::LoadReferenceRequest& start,
                           const NextImage& next) const {
    authorize(context);
    v1::LoadReferenceStreamResponse response;
    const auto call = stub_->LoadReferenceStream(&context, &response);
    v1::LoadReferenceStreamRequest message;
    *message.mutable_start() = start;
    try {
        while (call->Write(message)) {  // false: the call has ended, Finish returns the reason
            std::optional<std::string> image = next();
            if (!image) {
                break;
            }
            message.set_image(std::move(*image));
        }
    } catch (...) {
        context.TryCancel();  // half of the images must not become the reference
        call->Finish();
        throw;
    }
    call->WritesDone();
    if (const grpc::Status status = call->Finish(); !status.ok()) {
        throw Error(status);
    }
    return std::move(*response.mutable_reference());
}

void Client::stream(grpc::ClientContext& context, const v1::StreamConfig& config, const NextFrame& next,
                    const Handle& handle) const {
    authorize(context);
    const auto call = stub_->InferStream(&context);
    std::exception_ptr next_error, handle_error;  // one each, because both threads can fail
    {
        const std::jthread writing([&](const std::stop_token& stop) {
            try {
                write(*call, config, next, stop);
            } catch (...) {
                next_error = std::current_exception();
                context.TryCancel();  // ends the reading
            }
        });
        try {
            for (v1::InferStreamResponse response; call->Read(&response);) {
                handle(response);
            }
        } catch (...) {
            handle_error = std::current_exception();
            context.TryCancel();  // ends the writing
        }
    }  // requests a stop of `next`, and waits for it
    const grpc::Status status = call->Finish();
    for (const auto& thrown : {handle_error, next_error}) {
        if (thrown) {
            std::rethrow_exception(thrown);
        }
    }
    if (!status.ok()) {
        throw Error(status);
    }
}

}  // namespace patchserve
