"""JSON that is meant to cost much: each is refused in words, before it is parsed."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import InvalidInputError, MalformedMessageError, RequestTooLargeError
from patchserve_server.web.transcoding.json_text import MAX_BYTES_BESIDE_LONG_TEXTS, LongText, parse_json

MAX_ELEMENTS = 500
MIB = 2**20


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"[" * MIB, MalformedMessageError, "16 deep"),
        (b'{"a":' * 100_000, InvalidInputError, "500"),
        (b'{"a":' * 20, MalformedMessageError, "16 deep"),
        (b"[" + b"1," * 1000 + b"1]", InvalidInputError, "more than 500"),
        (b"[" + b"[]," * 1000 + b"1]", InvalidInputError, "more than 500"),
        (b"[" + b'"",' * 1000 + b"1]", InvalidInputError, "more than 500"),
        (b'["' + b'\\"' * MIB + b'"]', InvalidInputError, "more than 500"),
        (b'["' + b"\\" * MIB + b'"]', MalformedMessageError, "backslashes"),
        (b"[" + b" " * 2 * MIB + b"]", RequestTooLargeError, "1,048,576 bytes beside"),
        (b" " * 2 * MIB + b'"x"', RequestTooLargeError, "beside"),
        (b"1" * 65, MalformedMessageError, "too many digits"),
        (b"-1." + b"0" * 62 + b"1", MalformedMessageError, "too many digits"),
        (b"]" * MIB, MalformedMessageError, "closes nothing"),
        (b"}{" * MIB, RequestTooLargeError, "beside"),
        (b'["' + b"\\/" * 2 * MIB + b'"]', MalformedMessageError, "1,048,576 backslashes"),
        (b'{"a": 1, "a": 2}', MalformedMessageError, '"a" twice'),
        (b'{"\\u0061": 1, "a": 2}', MalformedMessageError, '"a" twice'),
        (b'{"a": NaN}', MalformedMessageError, 'write "NaN"'),
        (b'{"a": -Infinity}', MalformedMessageError, "-Infinity"),
        (b'{"a": "' + b"x" * MIB, MalformedMessageError, "no end"),
        (b'{"a": "\xff"}', MalformedMessageError, "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', MalformedMessageError, "not JSON"),
        ('{"a": 1}'.encode("utf-16"), MalformedMessageError, "not"),
        (b"{'a': 1}", MalformedMessageError, "line 1"),
        (b'{\n"a": 1,\n}', MalformedMessageError, "not JSON"),
        (b'{"a": 1} {}', MalformedMessageError, "Extra data"),
        (b"", MalformedMessageError, "not JSON"),
        (b"{" + b'"%b": 1}' % (b"x" * MIB), MalformedMessageError, "not JSON"),
    ],
)
def test_hostile_json_is_refused_in_words(body: bytes, error: type[InvalidInputError], words: str) -> None:
    with pytest.raises(error) as caught:
        parse_json(body, MAX_ELEMENTS)
    assert words in caught.value.message


def test_an_image_is_not_copied_while_the_json_is_parsed() -> None:
    body = b'{"images": ["' + b"A" * 16 * MIB + b'", "' + b"B" * 16 * MIB + b'"]}'
    tracemalloc.start()
    value = parse_json(body, MAX_ELEMENTS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(text.raw) for text in value["images"]] == [16 * MIB, 16 * MIB]
    assert peak < MIB


def test_the_place_of_a_long_text_cannot_be_guessed() -> None:
    long_text = '"' + "A" * 9000 + '"'
    value = parse_json(f'{{"a": {long_text}, "b": {{"": "0"}}, "c": {{"": ["0"]}}}}'.encode(), MAX_ELEMENTS)
    assert isinstance(value["a"], LongText)
    assert (value["b"], value["c"]) == ({"": "0"}, {"": ["0"]})


def test_many_small_images_are_no_less_than_a_few_large_ones() -> None:
    images = ["A" * 2000] * 1000
    value = parse_json(json.dumps({"images": images}).encode(), 2 * len(images))
    assert [bytes(text.raw) for text in value["images"]] == [b"A" * 2000] * 1000


def test_structure_in_strings_does_not_count() -> None:
    text = '[{,"\\' * 100
    assert parse_json(json.dumps({"a": text}).encode(), MAX_ELEMENTS) == {"a": text}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_what_is_within_the_limits_is_parsed_as_json_is(value: object, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    try:
        parsed = parse_json(body, MAX_ELEMENTS)
    except MalformedMessageError as error:
        assert "deep" in error.message  # noqa: PT017 - there may be none
    else:
        assert parsed == value


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ tfn0-9u', max_size=60).map(str.encode))
def test_any_bytes_are_json_or_a_clear_error(body: bytes) -> None:
    try:
        expected = json.loads(body.decode())
    except ValueError:
        with pytest.raises(InvalidInputError):
            parse_json(body, MAX_ELEMENTS)
        return
    try:
        value = parse_json(body, MAX_ELEMENTS)
    except InvalidInputError as error:
        allowed = ("twice", "deep", "no number")  # what Python takes and we do not
        assert any(word in error.message for word in allowed), error.message  # noqa: PT017 - there may be none
    else:
        assert value == expected


def test_the_limit_is_exact() -> None:
    body = b" " * (MAX_BYTES_BESIDE_LONG_TEXTS - 2) + b"[]"
    assert parse_json(body, MAX_ELEMENTS) == []
    with pytest.raises(RequestTooLargeError):
        parse_json(b" " + body, MAX_ELEMENTS)
