"""Errors as HTTP writes them."""

from __future__ import annotations

import pytest

from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import QueueFullError
from patchserve_server.web.errors import headers_of


@pytest.mark.parametrize(("delay_s", "header"), [(0.5, "1"), (1, "1"), (2.5, "3"), (10, "10")])
def test_nobody_is_asked_to_come_back_too_early(delay_s: float, header: str) -> None:
    assert headers_of(status_of(QueueFullError("Full.", delay_s), ""))["retry-after"] == header
