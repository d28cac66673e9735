"""The time limit of a call: the caller's own, in the header `grpc-timeout`, or the server's default.

Envoy and grpc-gateway understand the same header, so a caller may send it to either.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import HTTPConnection

from patchserve_server.domain.errors import InvalidInputError

HEADER: Final = "grpc-timeout"
_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_FORM: Final = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)


def timeout_of(request: HTTPConnection) -> float | None:
    """The caller's own time limit, in seconds; None if it sets none.

    Raises:
        InvalidInputError: the header is not a number and a unit.
    """
    text = request.headers.get(HEADER)
    if text is None:
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        message = f"{HEADER} is a whole number of at most 8 digits and a unit (H, M, S, m, u or n), such as 500m."
        raise InvalidInputError(HEADER, message)
    return int(found[1]) * _SECONDS[found[2]]
