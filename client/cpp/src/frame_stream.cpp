#include "frame_stream.h"

#include <thread>
#include <utility>

namespace patchserve {

FrameStream::FrameStream(Open open, v1::StreamConfig config, const Client::NextFrame& next,
                         const Client::Handle& handle, OwnChanges& own, Backoff backoff, std::string pinned_revision)
    : open_(std::move(open)),
      config_(std::move(config)),
      next_(next),
      handle_(handle),
      own_(own),
      backoff_(backoff),
      pinned_revision_(std::move(pinned_revision)) {}

void FrameStream::run(const std::function<grpc::ClientContext&()>& context, const std::stop_token& stop) {
    // One thread reads frames for all connections: a frame that is waited for outlives a connection.
    const std::jthread reading([this](const std::stop_token& ended) { read_frames(ended); });
    while (true) {
        const grpc::Status status = connect(context(), stop);
        rethrow();
        const auto delay = delay_after(status, stop);
        if (!delay) {
            return;
        }
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, stop, *delay, [] { return false; });
    }
}

void FrameStream::read_frames(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return wanted_; }) && !stop.stop_requested()) {
        wanted_ = false;
        lock.unlock();
        std::optional<v1::Frame> frame;
        std::exception_ptr error;
        try {
            frame = next_(stop);
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        if (frame) {
            unsent_.push_back({read_++, std::move(*frame)});
        } else {
            ended_ = true;
        }
        if (error && !stop.stop_requested()) {
            next_error_ = error;
            if (context_ != nullptr) {
                context_->TryCancel();  // ends the reading of results
            }
        }
        changed_.notify_all();
    }
}

grpc::Status FrameStream::connect(grpc::ClientContext& context, const std::stop_token& stop) {
    const auto call = open_(context);
    const v1::StreamConfig config = begin(context);
    const std::stop_callback cancelling(stop, [&context] { context.TryCancel(); });
    {
        const std::jthread writing([&](const std::stop_token& closed) { write(*call, config, closed); });
        try {
            for (v1::InferStreamResponse response; call->Read(&response);) {
                receive(response);
                handle_(response);
            }
        } catch (...) {
            handle_error_ = std::current_exception();
            context.TryCancel();  // ends the writing
        }
    }
    end();
    return call->Finish();
}

v1::StreamConfig FrameStream::begin(grpc::ClientContext& context) {
    const std::lock_guard lock(mutex_);
    for (auto item = unanswered_.rbegin(); item != unanswered_.rend(); ++item) {
        unsent_.push_front(std::move(item->second));
    }
    unanswered_.clear();
    sequence_ = 0;
    context_ = &context;
    v1::StreamConfig config = config_;
    if (!pinned_revision_.empty()) {
        config.set_expected_revision(pinned_revision_);
    }
    return config;
}

void FrameStream::end() {
    const std::lock_guard lock(mutex_);
    context_ = nullptr;
}

void FrameStream::write(Call& call, const v1::StreamConfig& config, const std::stop_token& closed) {
    v1::InferStreamRequest message;
    *message.mutable_config() = config;
    while (call.Write(message)) {  // false: the call has ended, Finish returns the reason
        std::optional<v1::Frame> frame = take(closed);
        if (!frame) {
            break;
        }
        *message.mutable_frame() = std::move(*frame);
    }
    call.WritesDone();
}

/// Waits for the next frame. Nothing: there is none, or the connection has ended.
std::optional<v1::Frame> FrameStream::take(const std::stop_token& closed) {
    std::unique_lock lock(mutex_);
    if (unsent_.empty() && !ended_) {
        wanted_ = true;
        changed_.notify_all();
    }
    const bool is_open = changed_.wait(lock, closed, [this] { return ended_ || !unsent_.empty(); });
    if (!is_open || closed.stop_requested() || unsent_.empty()) {
        return std::nullopt;
    }
    Placed taken = std::move(unsent_.front());
    unsent_.pop_front();
    v1::Frame frame = taken.frame;  // a copy: it may have to be sent again
    unanswered_.emplace(sequence_++, std::move(taken));
    return frame;
}

/// Gives a result its place in the whole stream.
void FrameStream::receive(v1::InferStreamResponse& message) {
    const std::lock_guard lock(mutex_);
    if (message.has_ready()) {
        pinned_revision_.clear();
        if (unsent_.empty() && unanswered_.empty()) {
            backoff_.reset();
        }
    }
    if (!message.has_result()) {
        return;
    }
    backoff_.reset();
    if (auto answered = unanswered_.extract(message.result().sequence())) {
        message.mutable_result()->set_sequence(answered.mapped().place);
    }
}

/// How long to wait before the next connection. Nothing: the stream has ended.
std::optional<std::chrono::nanoseconds> FrameStream::delay_after(const grpc::Status& status,
                                                                 const std::stop_token& stop) {
    const std::lock_guard lock(mutex_);
    const bool has_all_results = ended_ && unsent_.empty() && unanswered_.empty();
    if (status.ok() || (backoff_.reconnects() && has_all_results)) {
        return std::nullopt;
    }
    const Error error(status);
    if (!pinned_revision_.empty() && error.reason == "REVISION_MISMATCH") {
        own_.forget(id_of(config_.reference_id()));  // somebody else has changed it since
        pinned_revision_.clear();
        return std::chrono::nanoseconds::zero();
    }
    const auto delay = stop.stop_requested() ? std::nullopt : backoff_.delay(error);
    if (!delay) {
        throw error;
    }
    return delay;
}

void FrameStream::rethrow() {
    const std::lock_guard lock(mutex_);
    for (const auto& thrown : {handle_error_, next_error_}) {
        if (thrown) {
            std::rethrow_exception(thrown);
        }
    }
}

}  // namespace patchserve
