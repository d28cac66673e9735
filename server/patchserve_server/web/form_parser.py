"""Parses one multipart form as its bytes come. Each limit holds before the memory is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

from patchserve_server.domain.errors import ImageTooLargeError, InvalidInputError, MalformedMessageError
from patchserve_server.domain.reference_image import image_name_of_file
from patchserve_server.domain.words import counted
from patchserve_server.web.part_headers import PartHead, part_head

MAX_VALUES: Final = 32
MAX_VALUE_BYTES: Final = 64 * 2**10
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 4 * 2**10  # of all headers of a part
_MAX_BYTES_BESIDE: Final = MAX_PART_HEADER_BYTES + 1024  # of each part beside its content: headers, boundary, padding


@dataclass(frozen=True, slots=True, eq=False)
class FormFile:
    """A file of a form.

    Args:
        field: the name of its field.
        filename: for people, as the name of an image; may be empty.
        data: its bytes.
    """

    field: str
    filename: str
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A whole form: its files in the order in which they came, and its text values by field."""

    files: tuple[FormFile, ...]
    values: Mapping[str, str]


class FormParser:
    """Takes the bytes of one form as they come.

    Args:
        boundary: between its parts.
        max_files: the largest number of files.
        max_file_bytes: the largest size of a file.
    """

    def __init__(self, boundary: bytes, *, max_files: int, max_file_bytes: int) -> None:
        self._max_files, self._max_file_bytes, self._max_parts = max_files, max_file_bytes, max_files + MAX_VALUES
        self._delimiter = b"\r\n--" + boundary
        self._delimiters = 0  # in the body so far, whether or not they end a part
        self._parts = 0
        self._received_bytes = self._content_bytes = 0
        self._header_name, self._header_value, self._header_bytes = bytearray(), bytearray(), 0
        self._headers: dict[bytes, bytes] = {}
        self._head = PartHead("", None)
        self._data = bytearray()
        self._file_count = 0
        self._files: list[FormFile] = []
        self._values: dict[str, str] = {}
        self._is_complete = False
        self._parser: MultipartParser | None = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises:
            MalformedMessageError, InvalidInputError, ImageTooLargeError: see `read_form`.
        """
        # The parser looks at each of them in Python. With a short boundary, a body could have millions.
        self._delimiters += chunk.count(self._delimiter)
        if self._delimiters > self._max_parts + 1:
            raise self._too_many()
        if self._parser is None:
            raise RuntimeError("The parser is closed.")
        try:
            self._parser.write(chunk)
        except FormParserError:  # its own words are for those who write parsers
            message = (
                f"The body is not a multipart form near byte {self._received_bytes:,}. Each part starts with the "
                f"boundary of the Content-Type and has at most {MAX_PART_HEADERS} headers, each `Name: value`."
            )
            raise MalformedMessageError(message) from None
        self._received_bytes += len(chunk)
        if self._received_bytes - self._content_bytes > (self._parts + 1) * _MAX_BYTES_BESIDE:
            raise MalformedMessageError("The body of a multipart form has too many bytes beside its parts.")

    def form(self) -> Form:
        """The form, after its last bytes.

        Raises:
            MalformedMessageError: it has no end.
        """
        if not self._is_complete:
            raise MalformedMessageError("The body ends before the final boundary of the multipart form.")
        return Form(tuple(self._files), self._values)

    def close(self) -> None:
        """Lets the memory go at once: the parser and this object refer to each other."""
        self._parser = None

    def _too_many(self) -> InvalidInputError:
        allowed = f"{counted(self._max_files, 'file')} and {counted(MAX_VALUES, 'value')}"
        message = f"The form has too many parts: at most {allowed} are allowed."
        return InvalidInputError("", message)

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise self._too_many()
        self._headers, self._header_bytes = {}, 0

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header_value += data[start:end]

    def _count_header(self, nbytes: int) -> None:
        self._header_bytes += nbytes
        if self._header_bytes > MAX_PART_HEADER_BYTES:
            message = f"The headers of a part of the form have more than {MAX_PART_HEADER_BYTES:,} bytes."
            raise MalformedMessageError(message)

    def _end_header(self) -> None:
        name = bytes(self._header_name).lower()
        if name in self._headers:
            raise MalformedMessageError("A part of the form has the same header twice.")
        self._headers[name] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        self._head = part_head(self._headers)
        if self._head.filename is None:
            if self._head.field in self._values:
                message = f'The form has several values for the field "{self._head.field}"; it takes one.'
                raise InvalidInputError(self._head.field, message)
            return
        self._file_count += 1
        if self._file_count > self._max_files:
            raise self._too_many()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._content_bytes += end - start
        nbytes, field = len(self._data) + end - start, self._head.field
        if self._head.filename is None and nbytes > MAX_VALUE_BYTES:
            message = f'Field "{field}" has more than {MAX_VALUE_BYTES:,} bytes of text; a file needs a file name.'
            raise InvalidInputError(field, message)
        if nbytes > self._max_file_bytes:
            message = f"An image has more than {self._max_file_bytes:,} bytes, the most that it may have."
            raise ImageTooLargeError(message, field)
        self._data += memoryview(data)[start:end]

    def _end_part(self) -> None:
        field, filename, data = self._head.field, self._head.filename, self._data
        self._data = bytearray()
        if filename is None:
            self._values[field] = _text(field, data)
        elif filename or data:  # a browser sends neither for a field in which no file was chosen
            self._files.append(FormFile(field, image_name_of_file(filename), bytes(data)))

    def _end(self) -> None:
        self._is_complete = True


def _text(field: str, data: bytearray) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        message = f'Field "{field}" is not text in UTF-8; a file needs a file name in its Content-Disposition.'
        raise InvalidInputError(field, message) from None
