"""Responses with images, serialized. Their large fields are appended: protobuf would copy them several times.

The bytes are those of the messages of `responses`: fields may come in any order.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from google.protobuf.message import Message

from patchserve.v1 import inference_pb2, stream_pb2
from patchserve_server.contract import responses
from patchserve_server.domain.inspection import Inspection, OverlayFormat
from patchserve_server.domain.stream import FrameOutcome, StreamEvent

_LENGTH_DELIMITED: Final = 2  # the wire type

Parts: TypeAlias = list[bytes]


def infer_response(inspection: Inspection) -> bytes:
    """The bytes of `responses.infer_response`."""
    return b"".join(_infer_response(inspection))


def stream_event(event: StreamEvent, request_id: str) -> bytes:
    """The bytes of `responses.stream_event`."""
    if not isinstance(event, FrameOutcome) or not isinstance(event.result, Inspection):
        return responses.stream_event(event, request_id).SerializeToString()
    frame = responses.frame_fields(event).SerializeToString()
    response = _field(stream_pb2.FrameResult, "response", _infer_response(event.result))
    return b"".join(_field(stream_pb2.InferStreamResponse, "result", [frame, *response]))


def _infer_response(inspection: Inspection) -> Parts:
    message, large = responses.infer_response_without_data(inspection), Parts()
    overlay, score_map = inspection.overlay, inspection.score_map
    # A message in a message goes there whole: not every parser takes it in two parts.
    if overlay is not None and overlay.format is OverlayFormat.PNG:
        large += _field(type(message), "overlay_png", [overlay.data])
    elif overlay is not None:
        image = _field(inference_pb2.Overlay, "image", [overlay.data])
        large += _field(type(message), "overlay", [message.overlay.SerializeToString(), *image])
        message.ClearField("overlay")
    if score_map is not None:
        values = _field(inference_pb2.ScoreMap, "values", [responses.score_map_bytes(score_map)])
        large += _field(type(message), "score_map", [message.score_map.SerializeToString(), *values])
        message.ClearField("score_map")
    return [message.SerializeToString(), *large]


def _field(message: type[Message], name: str, parts: Parts) -> Parts:
    """A field that has a length, and these parts as its content."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(sum(map(len, parts))), *parts]


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits in each byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
