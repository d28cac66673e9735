"""Calls as listeners and the log see them, without a face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from patchserve_server.domain.call_events import Face
from patchserve_server.domain.reference_id import ReferenceId


@dataclass(eq=False)
class FakeCall:
    """Implements `domain.call_events.CallInfo`."""

    request_id: str = "ab" * 16
    face: Face = Face.GRPC
    method_name: str = "Infer"
    service: str = "patchserve.v1.PatchCoreService"
    is_stream: bool = False
    reference_id: ReferenceId | None = None
    trace_parent: str = ""
    address: str = "ipv4:10.0.0.1"
    client: str = "peer ipv4:10.0.0.1"
    headers: Mapping[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


@dataclass(eq=False)
class FakeFrame:
    """Implements `domain.call_events.FrameInfo`."""

    sequence: int = 0
    frame_id: str = "frame"
