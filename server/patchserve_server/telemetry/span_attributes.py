"""What spans say, in the names of OpenTelemetry's stable conventions for RPC (1.45), and in ours where they have none.

The published constants of the Python packages are those of an earlier version.
"""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.call_events import CallEnd, CallInfo, Face, FrameInfo
from patchserve_server.telemetry.log_text import one_line

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.45.0"
STATUS_CODE: Final = "rpc.status_code"
ERROR_TYPE: Final = "error.type"
REASON: Final = "patchserve.reason"
REFERENCE: Final = "patchserve.reference"
FRAME_RESULT: Final = "patchserve.frame.result"
WAIT: Final = "patchserve.wait"
BATCH_IMAGES: Final = "patchserve.batch.images"
BATCH_REFERENCES: Final = "patchserve.batch.references"

# Of a server's span: it is not a server's error that a caller asks for what there is not.
SERVER_ERRORS: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)

Attributes = dict[str, str | int | float | bool]


def method_of(call: CallInfo) -> str:
    """The full name of a method: also the name of its span."""
    return f"{call.service}/{call.method_name}" if call.service else call.method_name


def rpc_of(call: CallInfo) -> Attributes:
    """The system and the method."""
    return {"rpc.system.name": "grpc" if call.face is Face.GRPC else "http", "rpc.method": method_of(call)}


def at_start(call: CallInfo) -> Attributes:
    """What is known when a call begins."""
    attributes: Attributes = {**rpc_of(call), "patchserve.request_id": call.request_id}
    kind, _, address = call.address.partition(":")
    if kind in ("ipv4", "ipv6"):
        attributes["client.address"] = attributes["network.peer.address"] = address.strip("[]")
    attributes["network.transport"] = "unix" if kind == "unix" else "tcp"
    return attributes


def at_end(call: CallInfo, end: CallEnd) -> Attributes:
    """What is known when it has ended."""
    attributes: Attributes = {STATUS_CODE: end.code, "patchserve.client": one_line(call.client)}
    if call.reference_id is not None:
        attributes[REFERENCE] = call.reference_id
    if end.reason:
        attributes[REASON] = end.reason
    if end.code in SERVER_ERRORS:
        attributes[ERROR_TYPE] = end.code
    return attributes


def of_frame(frame: FrameInfo) -> Attributes:
    """What is known when a frame is accepted."""
    return {"patchserve.frame.sequence": frame.sequence, "patchserve.frame.id": one_line(frame.frame_id)}
