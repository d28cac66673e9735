"""Multipart forms that are malformed, truncated, nested, far too long, or odd but right."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import requests
from hypothesis import assume, given
from hypothesis import strategies as st

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.domain.reference_image import image_name_of_file
from patchserve_server.web.form_parser import MAX_PART_HEADER_BYTES, MAX_VALUE_BYTES, MAX_VALUES, Form, FormParser

BOUNDARY = b"boundary-0123456789"
MAX_FILES = 4
MAX_FILE_BYTES = 2 * MAX_VALUE_BYTES
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
LONG_HEADERS = b"".join(b"\r\nX%d: %s" % (number, b"x" * 999) for number in range(5))
MIXED = b"\r\nContent-Type: multipart/mixed; boundary=inner"
DISPOSITION = b'Content-Disposition: form-data; name="image"; filename="a.png"'


def parse(body: bytes, cuts: Sequence[int] = (), boundary: bytes = BOUNDARY) -> Form:
    """The form, from a body that comes in pieces."""
    parser = FormParser(boundary, max_files=MAX_FILES, max_file_bytes=MAX_FILE_BYTES)
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        parser.feed(body[start:end])
    return parser.form()


def parts(*contents: bytes, end: bytes = b"--\r\n", boundary: bytes = BOUNDARY) -> bytes:
    """A body of these parts, each with its headers."""
    return b"".join(b"--" + boundary + b"\r\n" + each + b"\r\n" for each in contents) + b"--" + boundary + end


def file_part(data: bytes = PNG, headers: bytes = DISPOSITION) -> bytes:
    return headers + b"\r\nContent-Type: image/png\r\n\r\n" + data


def value_part(name: bytes = b"reference_id", value: bytes = b"parcels", headers: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n' + headers + b"\r\n" + value


def outcome(body: bytes, cuts: Sequence[int] = (), boundary: bytes = BOUNDARY) -> object:
    """What the form has in it, or the reason of the error. Any other error fails the test."""
    try:
        form = parse(body, cuts, boundary)
    except PatchserveError as error:
        return error.reason
    return [(file.field, file.filename, file.data) for file in form.files], dict(form.values)


NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"\\'), min_size=1, max_size=12)
BODIES = st.binary(max_size=300) | st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"--", BOUNDARY, b"\r\n--" + BOUNDARY, DISPOSITION, b"\r\n\r\n", b":", b";", b" ", PNG]
    ),
    max_size=20,
).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=8)


@given(
    files=st.lists(st.tuples(NAMES, NAMES, st.binary(max_size=200) | st.just(b"\r\n--" + BOUNDARY[:-1])), max_size=4),
    values=st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"), max_size=40), max_size=6),
    cuts=CUTS,
)
def test_a_form_is_read_as_it_was_sent_however_it_is_cut(
    files: list[tuple[str, str, bytes]], values: dict[str, str], cuts: list[int]
) -> None:
    fields: list[Any] = [(field, (None, value.encode())) for field, value in values.items()]
    fields += [(field, (filename, data, "image/png")) for field, filename, data in files]
    assume(fields)
    request = requests.Request("POST", "http://localhost", files=fields).prepare()
    body, boundary = request.body, request.headers["content-type"].rpartition("boundary=")[2].encode()
    assert isinstance(body, bytes)
    form = parse(body, sorted(min(cut, len(body)) for cut in cuts), boundary)
    read = [(file.field, file.filename, file.data) for file in form.files]
    assert read == [(field, image_name_of_file(filename), data) for field, filename, data in files]
    assert form.values == values


@given(body=BODIES, cuts=CUTS)
def test_any_bytes_are_a_form_or_a_clear_error_however_they_are_cut(body: bytes, cuts: list[int]) -> None:
    assume(not body.startswith((b"\r", b"\n")))  # what comes before the first boundary is skipped, or refused
    whole = outcome(body)
    assert outcome(body, sorted(min(cut, len(body)) for cut in cuts)) == whole
    assert outcome(body, range(1, len(body))) == whole


@given(position=st.integers(0, 400), removed=st.integers(0, 40), inserted=st.binary(max_size=40), cuts=CUTS)
def test_a_damaged_form_is_a_form_or_a_clear_error(
    position: int, removed: int, inserted: bytes, cuts: list[int]
) -> None:
    body = parts(value_part(), file_part())
    damaged = body[:position] + inserted + body[position + removed :]
    assert outcome(damaged, sorted(min(cut, len(damaged)) for cut in cuts)) == outcome(damaged)


@given(length=st.integers(0, 700))
def test_a_form_that_is_cut_off_is_never_taken_for_a_whole_one(length: int) -> None:
    body = parts(value_part(), file_part(), end=b"--")
    assert (outcome(body[:length]) == "MALFORMED_MESSAGE") == (length < len(body))


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "another boundary": parts(file_part(), boundary=b"another"),
    "no boundary": PNG,
    "JSON": b'{"image": "..."}',
    "no final boundary": parts(file_part(), end=b"\r\n"),
    "no blank line": b"--" + BOUNDARY + b"\r\n" + DISPOSITION + b"\r\n--" + BOUNDARY + b"--\r\n",
    "no name": parts(b"Content-Disposition: form-data\r\n\r\n" + PNG),
    "an empty name": parts(value_part(name=b"")),
    "a name that is not UTF-8": parts(value_part(name=b"\xff")),
    "a name with a line": parts(value_part(name=b"a\nb")),
    "a long name": parts(value_part(name=b"n" * 65)),
    "an attachment": parts(file_part(headers=b'Content-Disposition: attachment; filename="a.png"')),
    "no Content-Disposition": parts(b"Content-Type: image/png\r\n\r\n" + PNG),
    "the same header twice": parts(file_part(headers=DISPOSITION + b"\r\n" + DISPOSITION)),
    "a header that is too long": parts(file_part(headers=DISPOSITION + b"\r\nX: " + b"x" * MAX_PART_HEADER_BYTES)),
    "headers that are too long": parts(file_part(headers=DISPOSITION + LONG_HEADERS)),
    "a header without an end": b"--" + BOUNDARY + b"\r\nX" + b"x" * 2**20,
    "too many headers": parts(file_part(headers=DISPOSITION + b"".join(b"\r\nX%d: x" % i for i in range(9)))),
    "too many parameters": parts(value_part(headers=b"Content-Type: text/plain" + b";" * 100 + b"\r\n")),
    "a header without a name": parts(file_part(headers=DISPOSITION + b"\r\n: x")),
    "much padding": b"--" + BOUNDARY + b"\r\n" + file_part() + b"\r\n--" + BOUNDARY + b" " * 2**20,
    "much before the parts": b"\r\n" * 2**20,
    "much after the parts": parts(file_part()) + b"x" * 2**20,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_not_a_form_is_refused_as_malformed(body: bytes) -> None:
    assert outcome(body) == "MALFORMED_MESSAGE"


INVALID: dict[str, tuple[bytes, str, str]] = {  # the body, the field, and what the sentence says
    "100,000 empty parts": (parts(*[b""] * 100_000), "", "too many parts"),
    "too many files": (parts(*[file_part()] * (MAX_FILES + 1)), "", "at most 4 files"),
    "too many values": (
        parts(*[value_part(b"v%d" % i) for i in range(MAX_VALUES + MAX_FILES + 1)]),
        "",
        f"at most 4 files and {MAX_VALUES} values",
    ),
    "the same value twice": (parts(value_part(), value_part(value=b"other")), "reference_id", "several values"),
    "a long value": (parts(value_part(value=b"v" * (MAX_VALUE_BYTES + 1))), "reference_id", "a file needs a file name"),
    "a file without a file name": (parts(value_part(b"image", PNG)), "image", "a file needs a file name"),
    "text in Latin-1": (parts(value_part(value="Käfer".encode("latin-1"))), "reference_id", "UTF-8"),
    "another charset": (
        parts(value_part(headers=b"Content-Type: text/plain; charset=UTF-16\r\n")),
        "reference_id",
        "UTF-8",
    ),
    "base64": (
        parts(file_part(headers=DISPOSITION + b"\r\nContent-Transfer-Encoding: base64")),
        "image",
        "Content-Transfer-Encoding",
    ),
    "parts in a part": (
        parts(DISPOSITION + MIXED + b"\r\n\r\n" + parts(file_part(), boundary=b"inner")),
        "image",
        "parts of its own",
    ),
}


@pytest.mark.parametrize(("body", "field", "text"), INVALID.values(), ids=INVALID)
def test_a_form_that_is_not_taken_gets_a_sentence_that_says_why(body: bytes, field: str, text: str) -> None:
    with pytest.raises(PatchserveError, match=text) as caught:
        parse(body)
    assert (caught.value.reason, getattr(caught.value, "field", None)) == ("INVALID_FIELD", field)


def test_a_file_that_is_too_large_is_refused_before_all_of_it_is_there() -> None:
    parser = FormParser(BOUNDARY, max_files=1, max_file_bytes=MAX_FILE_BYTES)
    parser.feed(b"--" + BOUNDARY + b"\r\n" + file_part(b"x" * MAX_FILE_BYTES))
    with pytest.raises(PatchserveError, match="the most that it may have") as caught:
        parser.feed(b"x")
    assert caught.value.reason == "IMAGE_TOO_LARGE"


def test_a_body_of_almost_boundaries_is_refused_before_they_are_looked_at() -> None:
    parser = FormParser(b"b", max_files=2, max_file_bytes=2**30)
    parser.feed(parts(file_part(), end=b"\r\n", boundary=b"b") + DISPOSITION + b"\r\n\r\n")
    with pytest.raises(PatchserveError, match="too many parts"):
        parser.feed(b"\r\n--bx" * 10_000)


RIGHT: dict[str, tuple[bytes, Callable[[Form], bool]]] = {
    "no parts": (b"--" + BOUNDARY + b"--", lambda form: not form.files and not form.values),
    "an empty line first": (b"\r\n" + parts(value_part()), lambda form: form.values == {"reference_id": "parcels"}),
    "text after the end": (parts(value_part()) + b"end", lambda form: form.values == {"reference_id": "parcels"}),
    "padding": (
        parts(value_part(), file_part()).replace(b"\r\n--" + BOUNDARY, b"\r\n--" + BOUNDARY + b" \t", 1),
        lambda form: len(form.files) == 1 and len(form.values) == 1,
    ),
    "an empty value": (parts(value_part(value=b"")), lambda form: form.values == {"reference_id": ""}),
    "a field without a chosen file": (
        parts(b'Content-Disposition: form-data; name="image"; filename=""\r\n\r\n'),
        lambda form: not form.files,
    ),
    "an empty file": (parts(file_part(b"")), lambda form: form.files[0].data == b""),
    "two files of a field": (
        parts(file_part(b"1"), file_part(b"2")),
        lambda form: [f.data for f in form.files] == [b"1", b"2"],
    ),
    "almost a boundary in a file": (
        parts(file_part(b"\r\n--" + BOUNDARY[:-1] + b"\r\n--" + BOUNDARY + b"x")),
        lambda form: form.files[0].data == b"\r\n--" + BOUNDARY[:-1] + b"\r\n--" + BOUNDARY + b"x",
    ),
    "headers in small letters": (
        parts(file_part(headers=DISPOSITION.lower())),
        lambda form: form.files[0].filename == "a.png",
    ),
    "bytes as they are": (
        parts(file_part(headers=DISPOSITION + b"\r\nContent-Transfer-Encoding: Binary")),
        lambda form: form.files[0].data == PNG,
    ),
    "a charset": (
        parts(value_part(value="Käfer".encode(), headers=b"Content-Type: text/plain; charset=UTF-8\r\n")),
        lambda form: form.values == {"reference_id": "Käfer"},
    ),
    "a path for a name": (
        parts(file_part(headers=b'Content-Disposition: form-data; name="image"; filename="C:\\\\a\\\\b.png"')),
        lambda form: form.files[0].filename == "b.png",
    ),
    "a name that is not text": (
        parts(file_part(headers=b'Content-Disposition: form-data; name="image"; filename="\x1b[2J\xff.png"')),
        lambda form: form.files[0].filename == "?[2J\N{REPLACEMENT CHARACTER}.png",
    ),
}


@pytest.mark.parametrize(("body", "is_right"), RIGHT.values(), ids=RIGHT)
def test_what_is_odd_but_right_is_read(body: bytes, is_right: Callable[[Form], bool]) -> None:
    assert is_right(parse(body))


def test_a_closed_parser_leaves_nothing_to_the_garbage_collector() -> None:
    gc.disable()
    try:
        parser = FormParser(BOUNDARY, max_files=MAX_FILES, max_file_bytes=MAX_FILE_BYTES)
        parser.feed(parts(file_part()))
        parser.close()
        left = weakref.ref(parser)
        del parser
        assert left() is None
    finally:
        gc.enable()
