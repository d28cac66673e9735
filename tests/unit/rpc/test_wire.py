"""Messages are checked before they are parsed: the size of every field of every message, and how many there are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fakes.wire import delimited, tagged, varint
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from patchserve.kserve import open_inference_pb2 as kserve
from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.contract.methods import MAX_TEXT_BYTES
from patchserve_server.domain.errors import InvalidInputError, MalformedMessageError
from patchserve_server.rpc.methods import METHODS
from patchserve_server.rpc.wire import MAX_CONTENTS_BYTES, MAX_NUMBERS_BYTES, check_message

Path = tuple[FieldDescriptor, ...]
NUMBERS = "a list of numbers"


def request_type(full_name: str) -> Descriptor:
    _, service, method = full_name.split("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].input_type


def paths(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Every field of the message and of the messages in it."""
    for field in message.fields:
        yield (*above, field)
        if field.message_type is not None:
            yield from paths(field.message_type, (*above, field))


REQUESTS = {request_type(name).full_name: request_type(name) for name in METHODS}
FIELDS = {
    f"{name}: {'.'.join(field.name for field in path)}": (message, path)
    for name, message in REQUESTS.items()
    for path in paths(message)
}


def limit_of(field: FieldDescriptor) -> int | None:
    """The largest value that is accepted, in bytes; None: as large as the message."""
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE):
        return None
    if field.type == FieldDescriptor.TYPE_STRING:
        return MAX_TEXT_BYTES
    return MAX_CONTENTS_BYTES if field.name.endswith("_contents") else MAX_NUMBERS_BYTES


def message_with(path: Path, value: bytes) -> bytes:
    for field in reversed(path):
        value = delimited(field.number, value)
    return value


def refused_field(data: bytes, message: Descriptor, max_elements: int = 128) -> str | None:
    try:
        check_message(data, message, max_elements)
    except InvalidInputError as error:
        return error.field
    return None


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_every_request_has_a_limit_that_is_checked_before_parsing(name: str) -> None:
    message, path = FIELDS[name]
    dotted = ".".join(field.name for field in path)
    limit = limit_of(path[-1])
    if limit is None:  # the message's size is its limit; the elements in it are counted
        assert refused_field(message_with(path, b"") * 128, message, 128 * len(path)) is None
        assert refused_field(message_with(path, b"") * 129, message, 128 * len(path)) is not None
    else:
        assert refused_field(message_with(path, bytes(limit)), message) is None
        assert refused_field(message_with(path, bytes(limit + 1)), message) == dotted


@given(
    st.builds(
        inference_pb2.InferRequest,
        reference_id=st.text(max_size=200),
        image=st.binary(),
        output=st.builds(
            inference_pb2.OutputOptions,
            overlay=st.booleans(),
            sensitivity=st.floats(width=32),
            max_regions=st.integers(0, 2**32 - 1),
        ),
    )
    | st.builds(
        reference_pb2.LoadReferenceRequest,
        images=st.lists(st.binary(max_size=9), max_size=20),
        search_radius=st.floats(),
        region_of_interest=st.lists(
            st.builds(
                reference_pb2.RelativePolygon,
                points=st.lists(st.builds(reference_pb2.RelativePoint, x=st.floats(), y=st.floats()), max_size=4),
            ),
            max_size=4,
        ),
    )
)
def test_what_clients_send_is_accepted(
    request: inference_pb2.InferRequest | reference_pb2.LoadReferenceRequest,
) -> None:
    assert check_message(request.SerializeToString(), request.DESCRIPTOR, 128) == 0


@given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=200) | st.lists(tagged(), max_size=9).map(b"".join))
def test_bytes_that_are_no_message_are_refused_here_or_by_the_parser(name: str, data: bytes) -> None:
    try:
        check_message(data, REQUESTS[name], 50)
    except MalformedMessageError:
        return  # also groups, which these messages do not have and the parser would skip
    except InvalidInputError:
        return
    with suppress(DecodeError):  # such as text that is not UTF-8
        GetMessageClass(REQUESTS[name]).FromString(data)


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05abc", b"\xff" * 11, b"\x0b\x0c", b"\x00\x00", b"\x0f", b"\x0d\x00"]
)
def test_broken_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        check_message(data, inference_pb2.InferRequest.DESCRIPTOR, 50)


def test_lists_of_numbers_are_counted_at_what_they_take_parsed() -> None:
    request = kserve.ModelInferRequest()
    request.inputs.add().contents.uint_contents.extend([0] * 1000)
    assert check_message(request.SerializeToString(), request.DESCRIPTOR, 50) >= 1000 * 4


def test_all_lists_of_numbers_of_a_message_share_a_limit() -> None:
    request = kserve.ModelInferRequest()
    for _ in range(16):
        contents = request.inputs.add().contents
        contents.uint64_contents.extend([0] * (MAX_CONTENTS_BYTES // 32))
        contents.fp32_contents.extend([0] * (MAX_CONTENTS_BYTES // 128))
    assert refused_field(request.SerializeToString(), request.DESCRIPTOR) is None
    request.inputs.add().contents.int_contents.append(0)
    assert refused_field(request.SerializeToString(), request.DESCRIPTOR) is not None


def test_a_message_of_the_smallest_parts_takes_no_memory() -> None:
    data = delimited(5, b"") * 2**20  # 1,048,576 inputs
    tracemalloc.start()
    assert refused_field(data, kserve.ModelInferRequest.DESCRIPTOR, 5000) == "inputs"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_unknown_fields_are_counted_too() -> None:
    data = (varint(15 << 3) + b"\x00") * 1000
    assert refused_field(data, inference_pb2.InferRequest.DESCRIPTOR, 1000) is None
    assert refused_field(data, inference_pb2.InferRequest.DESCRIPTOR, 999) == ""
