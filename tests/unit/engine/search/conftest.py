"""Which candidates a search starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from patchserve_server.engine.search import bank_index, exact, search_product
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.search_product import SearchProduct


def search_always_by(product: SearchProduct, patch: pytest.MonkeyPatch) -> None:
    """Makes this the first product of every search, whatever its size and this processor."""
    if product is SearchProduct.INT8 and not search_product._int8_is_exact():
        pytest.skip("this processor's int8 products overflow")
    patch.setitem(BankIndex.build.__func__.__kwdefaults__, "product", product)  # type: ignore[attr-defined]
    patch.setattr(bank_index, "LEAST_ROWS_OF_BOUNDS", 0)
    patch.setattr(exact, "LEAST_QUERIES", 1)


@pytest.fixture(scope="module", params=list(SearchProduct))
def candidates_by(request: pytest.FixtureRequest) -> Iterator[SearchProduct]:
    """The first product of every exact search."""
    with pytest.MonkeyPatch.context() as patch:
        search_always_by(request.param, patch)
        yield request.param


@pytest.fixture(scope="module", params=[SearchProduct.BF16, SearchProduct.INT8])
def bounds_product(request: pytest.FixtureRequest) -> SearchProduct:
    """A product that gives bounds of distances."""
    if request.param is SearchProduct.INT8 and not search_product._int8_is_exact():
        pytest.skip("this processor's int8 products overflow")
    return SearchProduct(request.param)


CPU = torch.device("cpu")
