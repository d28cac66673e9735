"""The documented HTTP service: what needs no socket."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.serving.readiness import Readiness
from patchserve_server.web import documented


class FakeCatalog:
    """Without references."""

    async def has(self, _reference_id: ReferenceId) -> bool:
        return False


class FakeApplication:
    """With a detector, and without references."""

    def __init__(self, backbone: str) -> None:
        self.detector = SimpleNamespace(backbone=backbone, device="cpu")
        self.catalog = FakeCatalog()


async def health(readiness: Readiness) -> tuple[int, Any]:
    calls: Any = SimpleNamespace(endpoint=lambda *_: None, probe=lambda _name, _method, handler, _errors: handler)
    overlays: Any = None
    for route in documented.routes(calls, readiness, overlays):
        if isinstance(route, Route) and route.path == "/health":
            response = await route.endpoint(Request({"type": "http"}))
            return response.status_code, json.loads(response.body)
    raise AssertionError


async def test_health_says_starting_healthy_and_draining() -> None:
    readiness = Readiness()
    assert await health(readiness) == (503, {"status": "starting"})
    application: Any = FakeApplication("wide_resnet50_2")
    readiness.serve(application)
    facts = {"model": "PatchCore with WideResNet-50-2", "memory_bank_loaded": False, "device": "cpu"}
    assert await health(readiness) == (200, {"status": "healthy", **facts})
    readiness.begin_drain()
    assert await health(readiness) == (503, {"status": "draining", **facts})


def test_every_backbone_has_a_name_that_people_write() -> None:
    assert set(documented.MODELS) == set(BACKBONES)
