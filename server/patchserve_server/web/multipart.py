"""Multipart forms: files and text values, as `curl -F` and browsers send them."""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.http_errors import UnsupportedMediaTypeError
from patchserve_server.web.calls import HttpCall
from patchserve_server.web.form_parser import Form, FormFile, FormParser
from patchserve_server.web.part_headers import parsed_header

__all__ = ["Form", "FormFile", "read_form"]

_MAX_BOUNDARY_BYTES: Final = 70  # RFC 2046


async def read_form(call: HttpCall, *, max_files: int) -> Form:
    """Reads the body of a call as a multipart form; a request without any body is an empty one.

    The permit grows as its bytes come; nothing is written to a disk.

    Args:
        call: its body is read.
        max_files: the largest number of files.

    Raises:
        UnsupportedMediaTypeError: the request is another kind of request.
        MalformedMessageError: the body is not a multipart form.
        InvalidInputError: there are too many files or values, or one of them is not valid.
        ImageTooLargeError: a file has more bytes than an image may have.
        The errors of `Body.chunks`.
    """
    headers = call.request.headers
    if headers.get("content-length", "0") == "0" and not {"content-type", "transfer-encoding"} & {*headers}:
        return Form((), {})
    boundary = _boundary(headers.get("content-type", ""))
    parser = FormParser(boundary, max_files=max_files, max_file_bytes=call.application.limits.max_image_bytes)
    async for chunk in call.body.chunks():
        parser.feed(chunk)
    return parser.form()


def _boundary(content_type: str) -> bytes:
    kind, parameters = parsed_header(content_type)
    if kind != b"multipart/form-data":
        message = "Send a multipart form: Content-Type multipart/form-data, as `curl -F` does."
        raise UnsupportedMediaTypeError(message)
    boundary = parameters.get(b"boundary", b"")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY_BYTES:
        message = f"The Content-Type of a multipart form needs a boundary of 1 to {_MAX_BOUNDARY_BYTES} bytes."
        raise InvalidInputError("content-type", message)
    return boundary
