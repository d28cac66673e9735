"""The recall of a search is measured on the bank itself."""

from __future__ import annotations

import pytest
import torch
from fakes.vectors import clustered

from patchserve_server.engine.search import ivf_index, ivf_search
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch
from patchserve_server.engine.search.recall import measure_recall

GROUPS = torch.arange(2000, dtype=torch.int32) // 250


def recall(index: BankIndex, groups: torch.Tensor = GROUPS) -> float:
    return measure_recall(index, groups, 9, ParallelSearch())


def test_an_exact_search_finds_everything() -> None:
    assert recall(BankIndex.build(clustered(2000))) == 1


def test_fewer_cells_find_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivf_index, "LEAST_ROWS", 100)
    index = BankIndex.build(clustered(2000, clusters=1), approximate=True)
    found = []
    for cells in (1, 8, 178):
        monkeypatch.setattr(ivf_search, "NPROBE", cells)
        found.append(recall(index))
    assert 0 < found[0] < found[1] < found[2] == 1
    assert recall(index, torch.zeros_like(GROUPS)) == 1  # one image: no row is left out
