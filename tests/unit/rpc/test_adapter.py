"""The adapter, as what gRPC knows of all methods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from patchserve_server.contract.methods import SERVICE
from patchserve_server.rpc.adapter import MethodAdapter
from patchserve_server.rpc.methods import METHODS
from patchserve_server.rpc.reading import ReadingLimits
from patchserve_server.rpc.server import Services
from patchserve_server.rpc.transport import Listening
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.reception import Reception
from patchserve_server.serving.refusal_pacing import RefusalPacing

LISTENING = Listening("localhost", 0, 2**20, 8, 1.0, 8, ReadingLimits(1.0, 8, 4, shares_places=True))


def entrance() -> Entrance:
    return Entrance(Readiness(), Reception(8), RefusalPacing(8), FailureLog())


def test_every_method_of_the_table_has_a_handler() -> None:
    adapter = Services(LISTENING, entrance(), None).adapter
    handlers = {name: adapter.service(SimpleNamespace(method=name)) for name in METHODS}
    assert None not in handlers.values()
    assert adapter.service(SimpleNamespace(method=f"/{SERVICE}/Unknown")) is None


def test_a_method_that_is_not_in_the_table_is_refused_at_the_start() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    with pytest.raises(LookupError, match=r"/made\.up\.Service/Do is not in the table"):
        MethodAdapter(entrance(), None, LISTENING).add_registered_method_handlers("made.up.Service", {"Do": handler})
