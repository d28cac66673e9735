#include "generic_call.h"

#include <utility>

#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/proto_utils.h>  // for messages of any type

namespace patchserve::cli {

GenericCall::GenericCall(const std::shared_ptr<grpc::Channel>& channel,
                         const google::protobuf::MethodDescriptor& method, std::unique_ptr<grpc::ClientContext> context)
    : context_(std::move(context)), response_(new_message(*method.output_type())) {
    const std::string path = "/" + method.service()->full_name() + "/" + method.name();
    grpc::TemplatedGenericStub<Message, Message>(channel).PrepareBidiStreamingCall(context_.get(), path, {}, this);
    AddHold();  // until end(): writes come from a thread that is not gRPC's
    StartRead(response_.get());
    StartCall();
}

GenericCall::~GenericCall() {
    if (!closed_) {
        cancel();
        end();
    }
}

void GenericCall::send(const Message& request) {
    change([this] { writing_ = true; });
    StartWrite(&request);
    wait([this] { return !writing_; });
}

void GenericCall::wait_for(std::size_t count) {
    wait([this, count] { return responses_.size() >= count || !reading_; });
}

grpc::Status GenericCall::end() {
    closed_ = true;
    StartWritesDone();
    RemoveHold();
    wait([this] { return done_; });
    return status_;
}

void GenericCall::OnReadDone(bool ok) {
    std::string text;
    if (ok) {
        (void)google::protobuf::util::MessageToJsonString(*response_, &text);  // fails only for an Any of unknown type
    }
    change([&] {
        reading_ = ok;
        if (ok) {
            responses_.push_back(std::move(text));
        }
    });
    if (ok) {
        StartRead(response_.get());
    }
}

void GenericCall::OnWriteDone(bool /*ok: false if the call has ended*/) {
    change([this] { writing_ = false; });
}

void GenericCall::OnDone(const grpc::Status& status) {
    change([&] {
        status_ = status;
        done_ = true;
    });
}

void GenericCall::change(const std::function<void()>& what) {
    const std::lock_guard lock(mutex_);
    what();
    changed_.notify_all();  // under the lock: a waiting thread may destroy this object
}

void GenericCall::wait(const std::function<bool()>& reached) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, reached);
}

std::unique_ptr<Message> new_message(const google::protobuf::Descriptor& type) {
    auto* factory = google::protobuf::MessageFactory::generated_factory();
    return std::unique_ptr<Message>(factory->GetPrototype(&type)->New());
}

}  // namespace patchserve::cli
