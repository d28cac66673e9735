"""The keys of the objects of a store, below its prefix."""

from __future__ import annotations

import hashlib
from typing import Final

from patchserve_server.domain.reference_id import ReferenceId

POINTERS: Final = "references/"
BANKS: Final = "banks/"
MANIFESTS: Final = "manifests/"
TRASH: Final = "trash/"
ROOT: Final = "index/root"
SHARDS: Final = "index/shards/"
LEASES: Final = "leases/"

ALL_SHARDS: Final = tuple(f"{number:02x}" for number in range(256))


def pointer_key(reference_id: ReferenceId) -> str:
    return POINTERS + reference_id


def shard_of(reference_id: ReferenceId) -> str:
    """The name of the shard of a reference: two hexadecimal digits."""
    return hashlib.sha256(reference_id.encode()).hexdigest()[:2]


def shard_key(shard: str) -> str:
    return SHARDS + shard
