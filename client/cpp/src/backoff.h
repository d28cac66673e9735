// When a stream connects again after its connection is lost, and when it stops trying.
#pragma once

#include <chrono>
#include <optional>

#include "patchserve/error.h"

namespace patchserve {

/// Growing delays between connections, for a limited time without progress. Zero: never a second one.
class Backoff {
public:
    explicit Backoff(std::chrono::nanoseconds resume_for) : resume_for_(resume_for) {}

    bool reconnects() const { return resume_for_ > resume_for_.zero(); }
    /// The stream made progress: start again with a short delay and the full time.
    void reset();
    /// How long to wait before the next connection, at least as long as the server asks for. Nothing: the error is
    /// final, or the time passes before.
    std::optional<std::chrono::nanoseconds> delay(const Error& error);

private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::nanoseconds FIRST = std::chrono::milliseconds(100);

    std::chrono::nanoseconds resume_for_;
    std::chrono::nanoseconds next_ = FIRST;
    std::optional<Clock::time_point> lost_at_;
};

}  // namespace patchserve
