"""Which replica gets a call: first those that have its reference open, then the one that is to have it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence
from typing import Final

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

REFERENCE: Final = "x-patchserve-reference"
"""The metadata in which clients name the reference of a call."""
OPEN: Final = "open"
"""The routing statistic of a replica: the ids of its open references."""


class ReferenceRouter(FIFOMixin, RequestRouter):
    """Prefers replicas that have the bank of a call in memory.

    A replica that is at its limit of ongoing requests refuses a call; then the next group gets it. So a reference that
    many ask for spreads over more replicas.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Groups of replicas, the first one first; Ray asks all of a group, and takes the one with the fewest calls."""
        reference = "" if pending_request is None else reference_of(pending_request)
        if not reference:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        open_ids = [replica.routing_stats.get(OPEN, ()) for replica in candidate_replicas]
        names = [replica.replica_id.unique_id for replica in candidate_replicas]
        return [[candidate_replicas[index] for index in group] for group in preferred(reference, names, open_ids)]


def reference_of(request: PendingRequest) -> str:
    """The reference that the caller names; empty: none."""
    context = request.metadata.grpc_context
    metadata = [] if context is None else context.invocation_metadata()
    return next((str(value) for key, value in metadata if key == REFERENCE), "")


def preferred(reference: str, replicas: Sequence[str], open_ids: Sequence[Collection[str]]) -> list[list[int]]:
    """Groups of positions: replicas that have it open; of the others, one after the other by a hash with the reference.

    Every proxy gives the same order (rendezvous hashing), and a new replica takes over its share only.
    """
    opened = [index for index, ids in enumerate(open_ids) if reference in ids]
    others = sorted(set(range(len(replicas))).difference(opened), key=lambda index: _weight(reference, replicas[index]))
    return [*([opened] if opened else []), *([index] for index in others)]


def _weight(reference: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{replica}/{reference}".encode(), digest_size=8).digest()
