"""Searches spread over threads: the same as in one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.engine.search import parallel as module
from patchserve_server.engine.search.exact import BankIndex, nearest
from patchserve_server.engine.search.parallel import ParallelSearch


@pytest.fixture(autouse=True, scope="module")
def _every_piece_is_worth_a_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LEAST_WORK", 1)
        yield


@given(
    queries=st.integers(0, 20),
    threads=st.integers(1, 5),
    hidden=st.booleans(),
    near=st.booleans(),
    seed=st.integers(0, 99),
)
def test_parts_give_what_the_whole_gives(queries: int, threads: int, hidden: bool, near: bool, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    wanted = torch.rand((queries, 6), generator=source)
    groups, places = torch.arange(30) % 3, torch.arange(30) % 5
    index = BankIndex(torch.rand((30, 6), generator=source), groups, places)
    exclude = torch.randint(3, (queries,), generator=source) if hidden else None
    visible = torch.rand((queries, 5), generator=source) > 0.4 if near else None
    expected = nearest(wanted, index, 4, exclude_groups=exclude, visible_places=visible)
    found = ParallelSearch(threads).nearest(wanted, index, 4, exclude_groups=exclude, visible_places=visible)
    for ours, whole in zip(found, expected, strict=True):
        assert torch.equal(ours, whole)


def test_many_callers_get_each_their_own() -> None:
    bank = torch.rand((50, 4))
    index, searcher = BankIndex(bank), ParallelSearch(3)
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda row: searcher.nearest(bank[row : row + 7], index, 1)[1], range(40)))
    assert [rows.flatten().tolist() for rows in found] == [list(range(row, row + 7)) for row in range(40)]


def test_the_bound_on_memory_is_shared_among_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, threads = [], set()

    def seen(*_args: object, memory_limit_bytes: int, **_more: object) -> tuple[torch.Tensor, torch.Tensor]:
        limits.append(memory_limit_bytes)
        threads.add((threading.current_thread().name, torch.get_num_threads()))
        return torch.zeros(1), torch.zeros(1)

    monkeypatch.setattr(module, "nearest", seen)
    ParallelSearch(4, 4000).nearest(torch.zeros(8, 2), BankIndex(torch.zeros(3, 2)), 1)
    assert limits == [1000] * 4
    assert all(name.startswith("search") and count == 1 for name, count in threads)


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="k is at least 1"):
        ParallelSearch(2).nearest(torch.zeros(8, 2), BankIndex(torch.zeros(3, 2)), 0)
