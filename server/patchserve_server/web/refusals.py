"""Answers to what reaches no route. Each is made once: anybody can ask for it, at any rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import PatchserveError, QueueFullError
from patchserve_server.domain.http_errors import HeadersTooLargeError, MalformedRequestError
from patchserve_server.serving.admission import RETRY_AFTER_S
from patchserve_server.web.errors import status_response

MAX_HEADER_BYTES: Final = 32 * 2**10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection ends, and its last bytes: a whole response."""

    error: PatchserveError
    response: bytes


def _refusal(error: PatchserveError) -> Refusal:
    response = status_response(status_of(error, ""))
    lines = [f"HTTP/1.1 {int(response.status_code)} ".encode(), b"connection: close"]
    lines += [name + b": " + value for name, value in response.raw_headers]
    return Refusal(error, b"\r\n".join([*lines, b"", bytes(response.body)]))


MALFORMED: Final = _refusal(MalformedRequestError())
HEADERS_TOO_LARGE: Final = _refusal(
    HeadersTooLargeError(f"A request has at most {MAX_HEADER_BYTES:,} bytes before its body: path and headers.")
)
TOO_MANY_CONNECTIONS: Final = _refusal(
    QueueFullError("There are too many connections, in all or of this client. Try again shortly.", RETRY_AFTER_S)
)
