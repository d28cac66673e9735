"""A search on several threads finds what it finds on one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.engine.search import parallel as module
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.parallel import ParallelSearch


@pytest.fixture(autouse=True, scope="module")
def _small_searches_use_all_threads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LEAST_PRODUCTS", 1)
        yield


@given(
    queries=st.integers(0, 20),
    threads=st.integers(1, 5),
    with_groups=st.booleans(),
    with_places=st.booleans(),
    seed=st.integers(0, 99),
)
def test_parts_find_what_the_whole_finds(
    queries: int, threads: int, with_groups: bool, with_places: bool, seed: int
) -> None:
    source = torch.Generator().manual_seed(seed)
    wanted = torch.rand((queries, 6), generator=source)
    groups, places = torch.arange(30) % 3, torch.arange(30) % 5
    index = BankIndex.build(torch.rand((30, 6), generator=source), groups=groups, places=places)
    exclude = torch.randint(3, (queries,), generator=source) if with_groups else None
    own_places = torch.randint(5, (queries,), generator=source)
    near = NearPlaces(own_places, (1, 5), (1, 1)) if with_places else None
    expected = nearest(wanted, index, 4, exclude_groups=exclude, near=near)
    found = ParallelSearch(threads).nearest(wanted, index, 4, exclude_groups=exclude, near=near)
    for ours, whole in zip(found, expected, strict=True):
        assert torch.equal(ours, whole)


def test_each_of_many_callers_gets_its_own_result() -> None:
    bank = torch.rand((50, 4))
    index, search = BankIndex.build(bank), ParallelSearch(3)
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda row: search.nearest(bank[row : row + 7], index, 1)[1], range(40)))
    assert [rows.flatten().tolist() for rows in found] == [list(range(row, row + 7)) for row in range(40)]


def test_the_threads_share_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, threads = [], set()

    def record(*_args: object, memory_limit_bytes: int, **_more: object) -> tuple[torch.Tensor, torch.Tensor]:
        limits.append(memory_limit_bytes)
        threads.add((threading.current_thread().name, torch.get_num_threads()))
        return torch.zeros(1), torch.zeros(1)

    monkeypatch.setattr(module, "nearest", record)
    ParallelSearch(4, 4000).nearest(torch.zeros(8, 2), BankIndex.build(torch.zeros(3, 2)), 1)
    assert limits == [1000] * 4
    assert all(name.startswith("search") and count == 1 for name, count in threads)


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        ParallelSearch(2).nearest(torch.zeros(8, 2), BankIndex.build(torch.zeros(3, 2)), 0)
