"""Whether Ray stops this replica. It waits for the ongoing calls of a replica before it tells the replica anything."""

from __future__ import annotations

from collections.abc import Callable

from ray._private.worker import global_worker


def find_stop_flag() -> Callable[[], bool]:
    """A function that says whether this replica is being stopped. Ray has no public one.

    Raises:
        AttributeError, KeyError: this version of Ray keeps it elsewhere.
    """
    replica = global_worker.actors[global_worker.actor_id]._replica_impl  # noqa: SLF001 - there is no other way
    assert replica._shutting_down is False  # noqa: S101, SLF001 - fails at the start, and not at the end
    return lambda: bool(replica._shutting_down)  # noqa: SLF001
