"""The time limit that a caller sets in a header."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.web.deadlines import timeout_of


def request(value: str | None) -> HTTPConnection:
    headers = [] if value is None else [(b"grpc-timeout", value.encode("latin-1"))]
    return HTTPConnection({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("value", "timeout_s"),
    [("1H", 3600), ("2M", 120), ("15S", 15), ("500m", 0.5), ("250u", 0.00025), ("1n", 1e-9), ("0S", 0), (None, None)],
)
def test_it_is_a_number_and_a_unit(value: str | None, timeout_s: float | None) -> None:
    assert timeout_of(request(value)) == pytest.approx(timeout_s)


@pytest.mark.parametrize("value", ["", "1", "S", "1s", "-1S", "1.5S", "123456789S", "1 S", "1S\n", "²S", "infS"])
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match="such as 500m") as caught:
        timeout_of(request(value))
    assert caught.value.field == "grpc-timeout"
