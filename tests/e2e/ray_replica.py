"""A replica for tests on Ray: the real server with a fake detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fakes.detector import FakeDetector

from patchserve_server.bootstrap import composition
from patchserve_server.ray.replica import Replica

if TYPE_CHECKING:
    from ray.serve import Application


class FakeReplica(Replica):
    """A replica without a network. Each is a process of its own, so the patch needs no end."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        composition.open_detector = lambda _: FakeDetector()  # type: ignore[assignment]
        super().__init__(given)


def app(arguments: Mapping[str, object]) -> Application:
    """`patchserve_server.ray.app`, with such replicas."""
    from patchserve_server.ray.application import build_application  # noqa: PLC0415 - imports Ray

    return build_application(arguments, FakeReplica)
