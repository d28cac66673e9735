"""The service config of gRPC: which calls are retried, and how calls are spread over several servers."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

# Calls that are safe to repeat: they change nothing, or do the same a second time. LoadReference is: an APPEND to any
# revision, which is not, uses LoadReferenceStream (_loads.py). DeleteReference is not: the second response would be
# NOT_FOUND. Nor is TuneReference: after its first success, the reference is not at the expected revision any more. A
# second RestoreReference undoes the first. Health checks and GetServerStats say what is now, so they are not repeated
# either. The clients in all languages have this file.
_FILE: Final = "service_config.json"

# Each server is asked whether it is ready, so that one that drains gets no more calls.
_SPREAD: Final[dict[str, Any]] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "patchserve.v1.PatchCoreService"},
}


def service_config(*, is_spread: bool) -> str:
    """As JSON, for gRPC.

    Args:
        is_spread: calls take turns on all servers that the address names, as far as these are ready.
    """
    config = read()
    return json.dumps(config | _SPREAD if is_spread else config)


def read() -> dict[str, Any]:
    """The file that all clients share."""
    shared: dict[str, Any] = json.loads((resources.files("patchserve_client") / _FILE).read_text("utf-8"))
    return shared
