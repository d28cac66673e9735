"""From JSON, a query or a form to a message: nothing is lost, and an error names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.messages import LONG_BYTES, REQUESTS, messages
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.form_parser import Form, FormFile
from patchserve_server.web.message_json import json_of
from patchserve_server.web.transcoding.form_values import object_of_form
from patchserve_server.web.transcoding.json_text import parse_json
from patchserve_server.web.transcoding.json_values import fill_message
from patchserve_server.web.transcoding.text_values import add_texts

MAX_ELEMENTS = 1000
SURROGATES = st.text(st.characters(), max_size=5) | st.just("\ud800")
any_request = st.sampled_from(REQUESTS)


def filled(kind: type[Message], value: object, **bound: str) -> Any:
    message = kind()
    fill_message(message, value, bound)
    return message


def from_json(message: Message, body: bytes) -> Message:
    """Another message of the same type, from JSON."""
    result: Message = filled(type(message), parse_json(body, MAX_ELEMENTS))
    return result


@given(st.data(), any_request, st.booleans(), st.booleans())
def test_a_request_as_json_is_the_same_message(
    data: st.DataObject, kind: Descriptor, preserving: bool, ascii_only: bool
) -> None:
    message = data.draw(messages(kind))
    text = json_format.MessageToJson(message, preserving_proto_field_name=preserving, ensure_ascii=ascii_only)
    assert from_json(message, text.encode()).SerializeToString() == message.SerializeToString()


@given(messages(inference_pb2.InferResponse.DESCRIPTOR))
def test_a_response_as_json_is_the_same_message(message: Message) -> None:
    assert json_format.Parse(json_of(message), type(message)()).SerializeToString() == message.SerializeToString()


@given(st.data(), any_request)
def test_a_request_as_query_is_the_same_message(data: st.DataObject, kind: Descriptor) -> None:
    message = data.draw(messages(kind, message_lists=False))
    without_empty_messages(message)
    fields: dict[str, Any] = {}
    texts = texts_of(json_format.MessageToDict(message, preserving_proto_field_name=True))
    for name in data.draw(st.permutations(list(texts))):
        add_texts(fields, kind, name, texts[name])
    assert filled(type(message), fields).SerializeToString() == message.SerializeToString()


@given(st.data(), any_request)
def test_a_request_as_form_is_the_same_message(data: st.DataObject, kind: Descriptor) -> None:
    message = data.draw(messages(kind))
    files, values = [], {}
    for name, value in json_format.MessageToDict(message, preserving_proto_field_name=True).items():
        if kind.fields_by_name[name].type == kind.fields_by_name[name].TYPE_BYTES:
            sent = getattr(message, name)
            files += [FormFile(name, "", one) for one in (sent if isinstance(value, list) else [sent])]
        else:
            values[name] = value if isinstance(value, str) else json.dumps(value)
    fields = object_of_form(Form(tuple(files), values), kind, MAX_ELEMENTS)
    assert filled(type(message), fields).SerializeToString() == message.SerializeToString()


@given(st.data(), any_request)
def test_any_json_in_a_request_is_taken_or_refused_in_words_that_can_be_sent(
    data: st.DataObject, kind: Descriptor
) -> None:
    fields = json_format.MessageToDict(data.draw(messages(kind)), preserving_proto_field_name=True)
    value = data.draw(with_something_else(fields))
    body, bound = json.dumps(value).encode(), {"reference_id": "a"} if "reference_id" in kind.fields_by_name else {}
    try:
        filled(GetMessageClass(kind), parse_json(body, MAX_ELEMENTS), **bound)
    except InvalidInputError as error:
        assert error.message  # noqa: PT017 - there may be none
        status_of(error, "").SerializeToString()


@st.composite
def with_something_else(draw: st.DrawFn, value: Any) -> Any:
    """JSON in which some values, or names, are others."""
    anything: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers() | st.floats() | SURROGATES | st.just([]) | st.just({})
    )
    match value:
        case dict():
            names = st.sampled_from(("", "\ud800", "referenceId", "x" * 2000))
            fields = {name: draw(with_something_else(one)) for name, one in value.items()}
            return fields | draw(st.dictionaries(names, anything, max_size=1))
        case list():
            return [draw(with_something_else(one)) for one in value]
        case _:
            return draw(anything) if draw(st.integers(0, 3)) == 0 else value


def without_empty_messages(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and not field.is_repeated:
            without_empty_messages(value)
            if not value.ListFields():
                message.ClearField(field.name)


def texts_of(value: dict[str, Any], prefix: str = "") -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for name, one in value.items():
        if isinstance(one, dict):
            texts |= texts_of(one, f"{prefix}{name}.")
        else:
            values = one if isinstance(one, list) else [one]
            texts[prefix + name] = [each if isinstance(each, str) else json.dumps(each) for each in values]
    return texts


def test_the_alphabet_for_urls_escapes_and_missing_padding_are_base64_too() -> None:
    text = json_format.MessageToDict(inference_pb2.InferRequest(image=LONG_BYTES))["image"]
    for written in (
        text.replace("+", "-").replace("/", "_").rstrip("="),
        text.replace("/", "\\/"),
        text.replace("+", "\\u002B"),
    ):
        body = f'{{"image": "{written}"}}'.encode()
        assert filled(inference_pb2.InferRequest, parse_json(body, MAX_ELEMENTS)).image == LONG_BYTES


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"ouput": {}}, "ouput", "Did you mean output?"),
        ({"output": {"overlays": True}}, "output.overlays", "Did you mean overlay?"),
        ({"overlay": True}, "overlay", "Did you mean output.overlay?"),
        ({"zzz": 1}, "zzz", "Its fields: reference_id, image, output, expected_revision, image_name, white_level."),
        ({"z" * 100: 1}, "z" * 64, "no field"),
        ({"\ud800": 1}, "\\ud800", "no field"),
        ({"output": {"max_regions": 1, "maxRegions": 1}}, "output.max_regions", "twice"),
        ({"output": []}, "output", "an object, not a list"),
        ({"output": {"overlay": 1}}, "output.overlay", "true or false, not 1"),
        ({"output": {"overlay": "true"}}, "output.overlay", 'true or false, not "true"'),
        ({"output": {"max_regions": -1}}, "output.max_regions", "a whole number, 0 to 4294967295, not -1"),
        ({"output": {"max_regions": 1.5}}, "output.max_regions", "not 1.5"),
        ({"output": {"max_regions": True}}, "output.max_regions", "not true"),
        ({"output": {"max_regions": "1_0"}}, "output.max_regions", 'not "1_0"'),
        ({"output": {"max_regions": 10**4000}}, "output.max_regions", "not 1000"),
        ({"output": {"sensitivity": 1e39}}, "output.sensitivity", "a number, not 1e+39"),
        ({"output": {"sensitivity": 10**400}}, "output.sensitivity", "a number, not 1000"),
        ({"output": {"sensitivity": "nan"}}, "output.sensitivity", "a number"),
        ({"output": {"heatmap_scale": "CALIBRATED"}}, "output.heatmap_scale", "HEATMAP_SCALE_CALIBRATED"),
        ({"output": {"heatmap_scale": "\ud800"}}, "output.heatmap_scale", '"\\ud800"'),
        ({"output": {"heatmap_scale": 1.5}}, "output.heatmap_scale", "not 1.5"),
        ({"reference_id": 1}, "reference_id", "a string of at most 1,024 bytes, not 1"),
        ({"reference_id": "a" * 1025}, "reference_id", "1,025 bytes"),
        ({"reference_id": "\ud800"}, "reference_id", "Unicode"),
        ({"image": 1}, "image", "base64, not 1"),
        ({"image": "data:image/png;base64,AAAA"}, "image", "data:"),
        ({"image": "AAAA\nAAAA"}, "image", "line breaks"),
        ({"image": "A"}, "image", "base64"),
    ],
)
def test_an_error_names_the_field_and_what_it_takes(value: object, field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        filled(inference_pb2.InferRequest, value)
    assert caught.value.field == field
    assert words in caught.value.message
    caught.value.message.encode()  # can be sent


def test_an_error_in_a_list_has_its_index() -> None:
    polygons = [{"points": [{"x": 0}, {"x": "a"}]}]
    with pytest.raises(InvalidInputError) as caught:
        filled(reference_pb2.LoadReferenceRequest, {"regionOfInterest": polygons})
    assert caught.value.field == "region_of_interest[0].points[1].x"
    with pytest.raises(InvalidInputError, match="a list"):
        filled(reference_pb2.LoadReferenceRequest, {"images": "AAAA"})
    with pytest.raises(InvalidInputError, match="not null"):
        filled(reference_pb2.LoadReferenceRequest, {"images": [None]})


def test_a_field_of_the_path_may_be_in_the_body_with_the_same_value_only() -> None:
    request = filled(inference_pb2.InferRequest, {"reference_id": "a", "image": None}, reference_id="a")
    assert request == inference_pb2.InferRequest(reference_id="a")
    assert filled(inference_pb2.InferRequest, {"reference_id": ""}, reference_id="a") == request
    with pytest.raises(InvalidInputError, match='"a" in the path, but "b"'):
        filled(inference_pb2.InferRequest, {"referenceId": "b"}, reference_id="a")


@pytest.mark.parametrize(
    ("name", "texts", "field"),
    [
        ("output", ["{}"], "output"),
        ("output.overlay", ["true", "true"], "output.overlay"),
        ("output.overlay.x", ["1"], "output.overlay"),
        ("image_names", ["a"], "image_names"),
    ],
)
def test_a_query_is_refused_with_its_field(name: str, texts: list[str], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        add_texts({}, inference_pb2.InferRequest.DESCRIPTOR, name, texts)
    assert caught.value.field == field


def test_names_of_files_become_names_of_images() -> None:
    load = reference_pb2.LoadReferenceRequest.DESCRIPTOR
    files = (FormFile("images", "a.png", b"1"), FormFile("images", "", b"2"))
    assert object_of_form(Form(files, {}), load, 10) == {"images": [b"1", b"2"], "image_names": ["a.png", ""]}
    named = object_of_form(Form(files, {"image_names": '["x", "y"]'}), load, 10)
    assert named["image_names"] == ["x", "y"]
    infer = inference_pb2.InferRequest.DESCRIPTOR
    one = FormFile("image", "a.png", b"1")
    assert object_of_form(Form((one,), {}), infer, 10) == {"image": b"1", "image_name": "a.png"}


@pytest.mark.parametrize(
    ("files", "values", "field"),
    [
        ((FormFile("image", "", b"1"), FormFile("image", "", b"1")), {}, "image"),
        ((FormFile("image", "", b"1"),), {"image": "AAAA"}, "image"),
        ((FormFile("output", "", b"1"),), {}, "output"),
        ((FormFile("picture", "", b"1"),), {}, "picture"),
        ((), {"output": "[]"}, "output"),
        ((), {"output.overlay": "yes"}, "output.overlay"),
        ((), {"output": '{"overlay": true}', "output.overlay": "true"}, "output.overlay"),
        ((), {"output": "overlay"}, ""),
    ],
)
def test_a_form_is_refused_with_its_field(files: tuple[FormFile, ...], values: dict[str, str], field: str) -> None:
    def read() -> None:
        filled(
            inference_pb2.InferRequest, object_of_form(Form(files, values), inference_pb2.InferRequest.DESCRIPTOR, 10)
        )

    with pytest.raises(InvalidInputError) as caught:
        read()
    assert caught.value.field == field


def test_a_request_may_be_empty() -> None:
    for kind in REQUESTS:
        message = GetMessageClass(kind)
        assert filled(message, {}) == message()


@pytest.mark.parametrize("value", [1.5, "1.5", "soon", "", "1e9s", {"seconds": 1}])
def test_a_duration_is_text(value: object) -> None:
    with pytest.raises(InvalidInputError, match="such as ") as caught:
        filled(stream_pb2.StreamConfig, {"frameTimeout": value})
    assert caught.value.field == "frame_timeout"
