#include "backoff.h"

#include <algorithm>
#include <random>

namespace patchserve {
namespace {

using namespace std::chrono_literals;

// A proxy that has lost the server resets the stream; a server that stops discards calls. Both give no reason.
bool is_connection_loss(const Error& error) {
    const bool may_be_reset = error.code == grpc::StatusCode::CANCELLED || error.code == grpc::StatusCode::INTERNAL ||
                              error.code == grpc::StatusCode::UNKNOWN;
    return error.code == grpc::StatusCode::UNAVAILABLE || error.retry_after || (may_be_reset && error.reason.empty());
}

double share() {
    thread_local std::mt19937 random(std::random_device{}());
    return std::uniform_real_distribution(0.75, 1.25)(random);
}

}  // namespace

void Backoff::reset() {
    lost_at_.reset();
    next_ = FIRST;
}

std::optional<std::chrono::nanoseconds> Backoff::delay(const Error& error) {
    const auto now = Clock::now();
    lost_at_ = lost_at_.value_or(now);
    const std::chrono::nanoseconds left = *lost_at_ + resume_for_ - now;
    const std::chrono::duration<double> told = error.retry_after.value_or(0s);
    if (left <= left.zero() || told > left || !is_connection_loss(error)) {
        return std::nullopt;
    }
    // Jitter, so that the streams of a lost server do not all connect at the same moment.
    const double part = share();
    const auto chosen = std::max<std::chrono::duration<double>>(next_ * part, told * std::max(part, 1.0));
    next_ = std::min<std::chrono::nanoseconds>(2 * next_, 2s);
    return std::min(left, std::chrono::ceil<std::chrono::nanoseconds>(chosen));
}

}  // namespace patchserve
