#include "patchserve/client.h"

#include <regex>
#include <utility>

#include "backoff.h"
#include "channel.h"
#include "frame_stream.h"
#include "own_changes.h"

namespace patchserve {
namespace {

// Names the reference of a call, so that a balancer can send it to a server that has it in memory.
constexpr auto REFERENCE_HEADER = "x-patchserve-reference";

// The server rejects every other id.
bool is_valid(const std::string& reference_id) {
    static const std::regex valid("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
    return std::regex_match(reference_id, valid);
}

}  // namespace

std::unique_ptr<grpc::ClientContext> within(std::chrono::nanoseconds timeout) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + timeout);
    return context;
}

Client::Client(const std::string& server, const Options& options)
    : channel_(open_channel(server, options)), stub_(v1::PatchCoreService::NewStub(channel_)), token_(options.token),
      own_(std::make_unique<OwnChanges>()) {}

Client::Client(Client&&) noexcept = default;

Client::~Client() = default;

// As a plain header: gRPC's call credentials refuse to send a token to a sidecar that adds TLS.
void Client::prepare(grpc::ClientContext& context, const std::string& reference_id) const {
    if (!token_.empty()) {
        context.AddMetadata("authorization", "Bearer " + token_);
    }
    if (is_valid(reference_id)) {
        context.AddMetadata(REFERENCE_HEADER, reference_id);
    }
}

std::string Client::own_revision(const std::string& reference_id) const { return own_->revision_of(reference_id); }

void Client::note(const v1::Reference& reference) const { own_->note(reference); }

void Client::forget(const std::string& reference_id) const { own_->forget(reference_id); }

/// Whether a call failed only because of the revision that this client has added to it.
bool Client::forgets(const grpc::Status& status, const std::string& reference_id) const {
    if (status.ok() || Error(status).reason != "REVISION_MISMATCH") {
        return false;
    }
    own_->forget(reference_id);
    return true;
}

v1::Reference Client::load(grpc::ClientContext& context, const v1::LoadReferenceRequest& start,
                           const NextImage& next) const {
    prepare(context, id_of(start.reference_id()));
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
    note(response.reference());
    return std::move(*response.mutable_reference());
}

void Client::stream(grpc::ClientContext& context, const v1::StreamConfig& config, const NextFrame& next,
                    const Handle& handle) const {
    prepare(context, id_of(config.reference_id()));
    const auto open = [this](grpc::ClientContext& one) { return stub_->InferStream(&one); };
    const Backoff once(std::chrono::nanoseconds::zero());
    FrameStream(open, config, next, handle, *own_, once, {}).run([&]() -> grpc::ClientContext& { return context; }, {});
}

void Client::stream(const Resumption& resumption, const v1::StreamConfig& config, const NextFrame& next,
                    const Handle& handle) const {
    const std::string reference_id = id_of(config.reference_id());
    const auto open = [this](grpc::ClientContext& one) { return stub_->InferStream(&one); };
    std::unique_ptr<grpc::ClientContext> context;
    const auto next_context = [&]() -> grpc::ClientContext& {
        context = std::make_unique<grpc::ClientContext>();
        prepare(*context, reference_id);
        return *context;
    };
    const std::string pinned = config.expected_revision().empty() ? own_->revision_of(reference_id) : std::string();
    FrameStream(open, config, next, handle, *own_, Backoff(resumption.resume_for), pinned)
        .run(next_context, resumption.stop);
}

}  // namespace patchserve
