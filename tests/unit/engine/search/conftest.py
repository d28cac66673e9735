"""Which candidates a search starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from patchserve_server.engine.search import bfloat16_bounds, exact


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def candidates_by(request: pytest.FixtureRequest) -> Iterator[str]:
    """The first product of every exact search, whatever this processor and the size of the search would choose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bfloat16_bounds, "multiplies_bfloat16", lambda _device: request.param == "bfloat16")
        patch.setattr(bfloat16_bounds, "LEAST_ROWS", 0)
        patch.setattr(exact, "LEAST_QUERIES", 1)
        yield request.param
