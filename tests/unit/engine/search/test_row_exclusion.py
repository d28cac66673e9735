"""Excluded rows are as if they were not in the bank."""

from __future__ import annotations

import pytest
import torch
from fakes.vectors import SMALL_LIMIT_BYTES, TINY_LIMIT_BYTES, vectors

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES

pytestmark = pytest.mark.usefixtures("candidates_by")

LIMITS_BYTES = [TINY_LIMIT_BYTES, SMALL_LIMIT_BYTES, DEFAULT_MEMORY_LIMIT_BYTES]


@pytest.mark.parametrize("limit", LIMITS_BYTES)
def test_rows_of_an_excluded_group_are_not_found(limit: int) -> None:
    bank, groups = vectors(90, 12, seed=6), torch.arange(90) // 18
    excluded = groups.flip(0).to(torch.int32)
    index = BankIndex.build(bank, groups=groups)
    distances, rows = nearest(bank, index, 5, memory_limit_bytes=limit, exclude_groups=excluded)
    for query in range(90):
        others = (groups != excluded[query]).nonzero().flatten()
        expected, expected_rows = nearest(bank[query : query + 1], BankIndex.build(bank[others]), 5)
        assert torch.equal(rows[query], others[expected_rows[0]])
        assert torch.equal(distances[query], expected[0])


def test_where_too_few_rows_are_left_the_rest_is_infinitely_far() -> None:
    index = BankIndex.build(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), groups=torch.tensor([7, 7, 7, 8]))
    distances, rows = nearest(torch.zeros(2, 1), index, 2, exclude_groups=torch.tensor([7, 8]))
    assert distances.tolist() == [[3.0, torch.inf], [0.0, 1.0]]
    assert rows.tolist() == [[3, -1], [0, 1]]


def test_an_index_without_groups_or_places_excludes_nothing() -> None:
    index = BankIndex.build(torch.ones(3, 2))
    with pytest.raises(ValueError, match="has no groups"):
        nearest(torch.ones(1, 2), index, 1, exclude_groups=torch.zeros(1))
    with pytest.raises(ValueError, match="has no places"):
        nearest(torch.ones(1, 2), index, 1, near=NearPlaces(torch.zeros(1), (2, 2), (1, 1)))
