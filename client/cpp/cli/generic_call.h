// A call of any kind as a stream of requests and a stream of responses, which is what all are on the wire.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

namespace patchserve::cli {

using Message = google::protobuf::Message;

class GenericCall final : private grpc::ClientBidiReactor<Message, Message> {
public:
    /// Opens it. Responses are read all the while, since a server that can't write stops reading.
    GenericCall(const std::shared_ptr<grpc::Channel>& channel, const google::protobuf::MethodDescriptor& method,
                std::unique_ptr<grpc::ClientContext> context);
    /// Cancels a call that has not ended.
    ~GenericCall() override;

    /// Returns when flow control has let it go, or the call has ended.
    void send(const Message& request);
    /// Waits until so many responses have come in all, or the call has ended.
    void wait_for(std::size_t count);
    void cancel() { context_->TryCancel(); }
    /// Closes this side and waits for the end.
    grpc::Status end();

    /// Every response as proto3 JSON; after the end.
    const std::vector<std::string>& responses() const { return responses_; }

private:
    void OnReadDone(bool ok) override;
    void OnWriteDone(bool ok) override;
    void OnDone(const grpc::Status& status) override;
    void change(const std::function<void()>& what);
    void wait(const std::function<bool()>& reached);

    const std::unique_ptr<grpc::ClientContext> context_;
    const std::unique_ptr<Message> response_;  // the one that is being read
    bool closed_ = false;                      // this side; of the caller's thread alone

    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    std::vector<std::string> responses_;
    bool writing_ = false, reading_ = true, done_ = false;
    grpc::Status status_;
};

/// A new message of a type that this program has code for.
std::unique_ptr<Message> new_message(const google::protobuf::Descriptor& type);

}  // namespace patchserve::cli
