"""Responses that are put together from bytes are the messages that protobuf would make."""

from __future__ import annotations

import numpy as np
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import inference_pb2, stream_pb2
from patchserve_server import contract
from patchserve_server.contract import serialized
from patchserve_server.domain.errors import FrameDroppedError
from patchserve_server.domain.inspection import (
    AnomalyScore,
    BoundingBox,
    DamageScore,
    EncodedOverlay,
    Inspection,
    OverlayFormat,
    Region,
    Timing,
    Verdict,
)
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.stream import FrameOutcome, NoticeKind, StreamEvent, StreamNotice, StreamReady

VERDICT = Verdict(DamageScore(3.5, False, 0.5), AnomalyScore(0.75, 3.0, 1.0, True, 2.5), 1.0)
# Sizes around those where a length takes one more byte.
DATA = st.sampled_from([0, 1, 100, 127, 128, 16_383, 16_384, 2**21]).map(bytes)
OVERLAYS = st.none() | st.builds(EncodedOverlay, DATA, st.sampled_from(OverlayFormat), st.just((30, 20)))
MAPS = st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda shape: np.ones(shape, np.float32))
REGIONS = st.lists(st.just(Region(BoundingBox(1, 2, 3, 4), ((1, 2), (4, 2), (4, 6)), 12.0, 2.0, 0.7)), max_size=3)
INSPECTIONS = st.builds(
    lambda overlay, score_map, regions: Inspection(
        ReferenceId("belt"), Revision("a" * 64), VERDICT, (30, 20), tuple(regions), overlay, score_map, Timing(1.0, 2.0)
    ),
    OVERLAYS,
    MAPS,
    REGIONS,
)


@given(INSPECTIONS)
def test_the_bytes_of_a_response_are_those_of_its_message(inspection: Inspection) -> None:
    data = serialized.infer_response(inspection)
    message = contract.infer_response(inspection)
    assert inference_pb2.InferResponse.FromString(data) == message
    fields = UnknownFieldSet(Empty.FromString(data))
    numbers = [fields[position].field_number for position in range(len(fields))]
    singular = [number for number in numbers if number != message.DESCRIPTOR.fields_by_name["regions"].number]
    assert len(singular) == len(set(singular)), "Envoy takes no field in two parts"
    assert message.ByteSize() <= len(data) <= message.ByteSize() + 4  # an empty overlay has a tag and a length


@given(INSPECTIONS, st.none() | st.just((1_700_000_000, 5)))
def test_the_bytes_of_a_frame_are_those_of_its_message(
    inspection: Inspection, capture_time: tuple[int, int] | None
) -> None:
    outcome = FrameOutcome("frame 7", capture_time, 300, inspection)
    data = serialized.stream_event(outcome, "r1")
    assert stream_pb2.InferStreamResponse.FromString(data) == contract.stream_event(outcome, "r1")


def test_events_without_images_are_serialized_too() -> None:
    events: list[StreamEvent] = [
        StreamReady(ReferenceId("belt"), Revision("a" * 64), 4),
        StreamNotice(NoticeKind.DRAINING, "soon"),
        FrameOutcome("f1", None, 0, FrameDroppedError("dropped")),
    ]
    for event in events:
        data = serialized.stream_event(event, "r1")
        assert stream_pb2.InferStreamResponse.FromString(data) == contract.stream_event(event, "r1")
