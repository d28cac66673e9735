#include "own_changes.h"

namespace patchserve {
namespace {

// Servers with one store hear of changes within about 3 s; one that is asked for a revision looks it up at once.
constexpr std::chrono::seconds REMEMBERED(10);

}  // namespace

std::string id_of(const std::string& reference_id) { return reference_id.empty() ? "default" : reference_id; }

void OwnChanges::note(const v1::Reference& reference) {
    const std::lock_guard lock(mutex_);
    std::erase_if(changes_, [](const auto& item) { return item.second.is_old(); });
    changes_.insert_or_assign(reference.reference_id(), Change{reference.revision(), Clock::now()});
}

std::string OwnChanges::revision_of(const std::string& reference_id) const {
    const std::lock_guard lock(mutex_);
    const auto found = changes_.find(reference_id);
    return found == changes_.end() || found->second.is_old() ? std::string() : found->second.revision;
}

void OwnChanges::forget(const std::string& reference_id) {
    const std::lock_guard lock(mutex_);
    changes_.erase(reference_id);
}

bool OwnChanges::Change::is_old() const { return Clock::now() - at >= REMEMBERED; }

}  // namespace patchserve
