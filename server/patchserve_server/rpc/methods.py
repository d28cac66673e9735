"""The table of methods on the gRPC port: those of the contract, and health and reflection."""

from __future__ import annotations

from typing import Final

from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from patchserve_server.contract import methods
from patchserve_server.contract.methods import ANY_SCOPE, OPEN, PROBE, Method
from patchserve_server.rpc.reflection import REFLECTION_V1

HEALTH: Final[str] = health.SERVICE_NAME
REFLECTION: Final[str] = reflection.SERVICE_NAME

_REFLECTION: Final = Method(ANY_SCOPE, always_answered=True, stays_open=True)

METHODS: Final[dict[str, Method]] = methods.METHODS | {
    f"/{HEALTH}/Check": PROBE,
    f"/{HEALTH}/List": PROBE,
    f"/{HEALTH}/Watch": Method(OPEN, always_answered=True, stays_open=True),
    # The contract is public, but which services this server has is not.
    f"/{REFLECTION}/ServerReflectionInfo": _REFLECTION,
    f"/{REFLECTION_V1}/ServerReflectionInfo": _REFLECTION,
}
"""All methods of all services on the port, by full name. The adapter rejects calls of other methods."""
