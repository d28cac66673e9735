"""Messages of the contract with any values, for property tests."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from patchserve.v1 import service_pb2, stream_pb2
from patchserve_server.contract.methods import MAX_TEXT_BYTES

UNARY = [
    method
    for method in service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"].methods
    if not (method.client_streaming or method.server_streaming)
]
# What JSON and queries can say: the requests of unary methods, and the configuration of a stream.
REQUESTS = [*(method.input_type for method in UNARY), stream_pb2.StreamConfig.DESCRIPTOR]
LONG_BYTES = bytes(range(256)) * 40  # in base64, longer than any text

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20) | st.just(LONG_BYTES),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False) | st.just(math.nan),  # JSON has one NaN, without a sign
    FieldDescriptor.TYPE_ENUM: st.integers(0, 4),
    # The largest float is too large for json_format, because its shortest form in JSON is larger.
    FieldDescriptor.TYPE_FLOAT: st.floats(-(2.0**127), 2.0**127, width=32) | st.sampled_from((math.nan, math.inf)),
    FieldDescriptor.TYPE_STRING: st.text(max_size=20) | st.just("ä" * (MAX_TEXT_BYTES // 2)),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, *, message_lists: bool = True) -> Message:
    """A message with any of its fields set.

    Args:
        draw: Hypothesis's.
        descriptor: its type.
        message_lists: whether lists of messages may have elements; a query has no place for them.
    """
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.booleans()):
            continue
        if field.message_type is Duration.DESCRIPTOR:
            getattr(message, field.name).FromNanoseconds(draw(st.integers(-(2**60), 2**60)))
        elif field.message_type is not None:
            inner = messages(field.message_type, message_lists=message_lists)
            if not field.is_repeated:
                getattr(message, field.name).CopyFrom(draw(inner))
            elif message_lists:
                getattr(message, field.name).extend(draw(st.lists(inner, max_size=2)))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_SCALARS[field.type], max_size=3)))
        else:
            setattr(message, field.name, draw(_SCALARS[field.type]))
    return message
