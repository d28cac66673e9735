// A call of any method, as a stream of requests and a stream of responses: in HTTP/2, every call is one.
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
    /// Opens the call. Responses are always read, because a server that cannot write stops reading.
    GenericCall(const std::shared_ptr<grpc::Channel>& channel, const google::protobuf::MethodDescriptor& method,
                std::unique_ptr<grpc::ClientContext> context);
    /// Cancels the call if it has not ended.
    ~GenericCall() override;

    /// Returns when flow control has let the message pass, or the call has ended.
    void send(const Message& request);
    /// Waits until there are this many responses in total, or the call has ended.
    void wait_for(std::size_t count);
    void cancel() { context_->TryCancel(); }
    /// Closes the sending side and waits for the end.
    grpc::Status end();

    /// Every response as proto3 JSON. Call it only after end().
    const std::vector<std::string>& responses() const { return responses_; }

private:
    void OnReadDone(bool ok) override;
    void OnWriteDone(bool ok) override;
    void OnDone(const grpc::Status& status) override;
    void change(const std::function<void()>& what);
    void wait(const std::function<bool()>& reached);

    const std::unique_ptr<grpc::ClientContext> context_;
    const std::unique_ptr<Message> response_;  // the response that is read now
    bool closed_ = false;                      // the sending side; only for the thread of the caller

    std::mutex mutex_;  // guards the members below
    std::condition_variable changed_;
    std::vector<std::string> responses_;
    bool writing_ = false, reading_ = true, done_ = false;
    grpc::Status status_;
};

/// A new message. The program must contain the generated code of its type.
std::unique_ptr<Message> new_message(const google::protobuf::Descriptor& type);

}  // namespace patchserve::cli
