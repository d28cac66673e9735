// A stream of frames over several connections: frames without a result are sent again on the next one.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "backoff.h"
#include "own_changes.h"
#include "patchserve/client.h"

namespace patchserve {

class FrameStream {
public:
    using Call = grpc::ClientReaderWriterInterface<v1::InferStreamRequest, v1::InferStreamResponse>;
    using Open = std::function<std::unique_ptr<Call>(grpc::ClientContext&)>;

    /// `pinned_revision`: made by this client a moment ago; asked for until a connection is open. Empty: none.
    FrameStream(Open open, v1::StreamConfig config, const Client::NextFrame& next, const Client::Handle& handle,
                OwnChanges& own, Backoff backoff, std::string pinned_revision);

    /// Runs the whole stream. `context` is asked for a context for each connection; `stop` ends the stream early.
    void run(const std::function<grpc::ClientContext&()>& context, const std::stop_token& stop);

private:
    /// A frame and its place in the whole stream. The server counts the frames of one connection.
    struct Placed {
        std::uint64_t place;
        v1::Frame frame;
    };

    void read_frames(const std::stop_token& stop);
    grpc::Status connect(grpc::ClientContext& context, const std::stop_token& stop);
    v1::StreamConfig begin(grpc::ClientContext& context);
    void end();
    void write(Call& call, const v1::StreamConfig& config, const std::stop_token& closed);
    std::optional<v1::Frame> take(const std::stop_token& closed);
    void receive(v1::InferStreamResponse& message);
    std::optional<std::chrono::nanoseconds> delay_after(const grpc::Status& status, const std::stop_token& stop);
    void rethrow();

    const Open open_;
    const v1::StreamConfig config_;
    const Client::NextFrame& next_;
    const Client::Handle& handle_;
    OwnChanges& own_;
    Backoff backoff_;
    std::string pinned_revision_;

    std::mutex mutex_;  // guards the members below
    std::condition_variable_any changed_;
    std::deque<Placed> unsent_;
    std::map<std::uint64_t, Placed> unanswered_;  // by sequence on this connection
    std::uint64_t sequence_ = 0, read_ = 0;
    bool wanted_ = false;  // a frame
    bool ended_ = false;   // no frame follows
    grpc::ClientContext* context_ = nullptr;  // of the open connection
    std::exception_ptr next_error_, handle_error_;
};

}  // namespace patchserve
