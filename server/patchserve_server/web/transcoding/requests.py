"""Reads the message of a request: from its path, and its query or its body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from starlette.requests import Request

from patchserve_server.contract.methods import Method
from patchserve_server.domain.errors import InvalidInputError, RequestTooLargeError
from patchserve_server.domain.http_errors import UnsupportedMediaTypeError
from patchserve_server.web.calls import HttpCall
from patchserve_server.web.multipart import read_form
from patchserve_server.web.part_headers import parsed_header
from patchserve_server.web.transcoding.bindings import Binding
from patchserve_server.web.transcoding.form_values import object_of_form
from patchserve_server.web.transcoding.json_text import parse_json
from patchserve_server.web.transcoding.json_values import fill_message
from patchserve_server.web.transcoding.shown import shown
from patchserve_server.web.transcoding.text_values import add_texts

_ON_LOOP_BYTES: Final = 256 * 2**10  # below it, a thread costs more time than it saves
_JSON: Final = b"application/json"
_FORM: Final = b"multipart/form-data"

T = TypeVar("T")


async def read_request(binding: Binding, method: Method, call: HttpCall) -> Message:
    """The request message. Its body is received within the limits of the method.

    Raises:
        UnsupportedMediaTypeError: the body is neither JSON nor a multipart form.
        The errors of `Body.read`, `read_form`, `parse_json` and `fill_message`.
    """
    request, limits = call.request, call.application.limits
    max_bytes = method.max_request_bytes(limits.max_message_bytes)
    max_elements = method.max_request_elements(limits.max_reference_images)
    message = binding.new_request()
    if binding.takes_body:
        value, nbytes = await _from_body(binding, call, max_bytes, max_elements)
    else:
        value, nbytes = _from_query(binding, request, max_elements), 0
    await off_loop(nbytes, lambda: fill_message(message, value, request.path_params))
    if message.ByteSize() > max_bytes:
        raise RequestTooLargeError(f"The message has more than {max_bytes:,} bytes, the most that this method takes.")
    return message


async def off_loop(nbytes: int, work: Callable[[], T]) -> T:
    """Does the work for so many bytes, in a thread if they are many."""
    return work() if nbytes <= _ON_LOOP_BYTES else await asyncio.to_thread(work)


async def _from_body(binding: Binding, call: HttpCall, max_bytes: int, max_elements: int) -> tuple[Any, int]:
    """The JSON value of the body, and the number of its bytes."""
    if call.request.url.query:
        raise InvalidInputError("", "This method takes no query: all fields are in the body, or in the path.")
    kind, parameters = parsed_header(call.request.headers.get("content-type", ""))
    if kind == _FORM:
        form = await read_form(call, max_files=call.application.limits.max_reference_images)
        nbytes = sum(map(len, form.values.values())) + sum(len(file.data) for file in form.files)
        return await off_loop(nbytes, lambda: object_of_form(form, binding.method.input_type, max_elements)), nbytes
    is_json = kind == _JSON and parameters.get(b"charset", b"utf-8").lower() == b"utf-8"
    if not is_json and (kind or _has_body(call.request)):
        raise _unsupported(kind)
    # Half as large again as a message: base64 takes a third more, and fields have names.
    body = await call.body.read(max_bytes=max_bytes + max_bytes // 2)
    return await off_loop(len(body), lambda: parse_json(body or b"{}", max_elements)), len(body)


def _from_query(binding: Binding, request: Request, max_elements: int) -> dict[str, Any]:
    if _has_body(request):
        raise InvalidInputError("", "This method takes no body: its fields are in the path and the query.")
    return fields_of_query(request.scope["query_string"], binding.method.input_type, max_elements)


def fields_of_query(query: bytes, descriptor: Descriptor, max_elements: int) -> dict[str, Any]:
    """The fields of a message in a query, such as `output.max_regions=4`.

    Raises:
        InvalidInputError: the query is malformed, or has fields that the message does not.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=max_elements,
        )
    except ValueError:  # UnicodeDecodeError is one
        message = f"The query is not UTF-8, percent-encoded, with at most {max_elements} parameters."
        raise InvalidInputError("", message) from None
    texts: dict[str, list[str]] = {}
    for name, text in pairs:
        texts.setdefault(name, []).append(text)
    fields: dict[str, Any] = {}
    for name, values in texts.items():
        add_texts(fields, descriptor, name, values)
    return fields


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _unsupported(kind: bytes) -> UnsupportedMediaTypeError:
    return UnsupportedMediaTypeError(
        "The body must be JSON in UTF-8 (Content-Type: application/json) or a multipart form (multipart/form-data), "
        f"not {shown(kind.decode('latin-1')) if kind else 'without a Content-Type'}."
    )
