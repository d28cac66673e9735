"""References in a bucket that several servers use."""

from patchserve_server.store.shared.cache import DigestCache
from patchserve_server.store.shared.store import SharedReferenceStore
from patchserve_server.store.shared.surroundings import Surroundings

__all__ = ["DigestCache", "SharedReferenceStore", "Surroundings"]
