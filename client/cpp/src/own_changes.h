// What this client has changed a moment ago, so that it finds it on every server.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

#include <patchserve/v1/reference.pb.h>

namespace patchserve {

/// The id, or that of the contract for an empty one.
std::string id_of(const std::string& reference_id);

/// The revision of each reference that this client has changed in the last seconds. Threads may share it.
class OwnChanges {
public:
    /// The reference has this revision since just now, because of a call of this client.
    void note(const v1::Reference& reference);
    /// The revision to ask for; empty if this client has changed nothing.
    std::string revision_of(const std::string& reference_id) const;
    /// Somebody else has changed or deleted the reference.
    void forget(const std::string& reference_id);

private:
    using Clock = std::chrono::steady_clock;
    struct Change {
        std::string revision;
        Clock::time_point at;
        bool is_old() const;
    };

    mutable std::mutex mutex_;  // guards the changes
    std::map<std::string, Change> changes_;
};

}  // namespace patchserve
