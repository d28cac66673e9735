"""Search and coreset selection stay within their memory limits, checked at every operation of torch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from patchserve_server.engine.patchcore.coreset import select_coreset
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.int8_bounds import Int8Bounds
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES, ScratchBudget
from patchserve_server.engine.search.search_product import SearchProduct

MIB = 2**20


class AllocationWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in given | self._known:
                self._watch(leaf.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage.data_ptr())
        self.live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, storage.data_ptr(), storage.nbytes())

    def _forget(self, address: int, nbytes: int) -> None:
        self._known.discard(address)
        self.live_bytes -= nbytes


@pytest.mark.parametrize("dim", [64, 1536, 3072])
def test_on_a_gpu_distances_are_computed_in_few_large_pieces(dim: int) -> None:
    scratch = ScratchBudget(DEFAULT_MEMORY_LIMIT_BYTES, dim)
    of_cpu, of_gpu = (scratch.rows_per_refinement(is_cpu=is_cpu) for is_cpu in (True, False))
    assert of_gpu > 10 * of_cpu
    assert 4 * dim * of_gpu <= DEFAULT_MEMORY_LIMIT_BYTES / 4


def test_the_watch_counts_what_is_alive() -> None:
    with AllocationWatch() as watch:
        first = torch.ones(MIB // 4)
        view = first[:10].add_(1)
        second = torch.zeros(MIB // 2)
        del second
        third = torch.zeros(MIB // 4)
    assert (watch.peak_bytes, watch.live_bytes) == (3 * MIB, 2 * MIB)
    assert view.sum() + third.sum() == 20


@pytest.mark.parametrize("limit_mib", [1, 4, 32])
@pytest.mark.parametrize("exclusion", [False, True])
@pytest.mark.parametrize("product", SearchProduct)
def test_a_search_stays_within_its_limit(limit_mib: int, exclusion: bool, product: SearchProduct) -> None:
    bank = torch.randn(6000, 256, generator=torch.Generator().manual_seed(0))
    bank[:3000] = 1e-4 * bank[:3000] + 5  # so similar that float64 is needed
    queries, groups = torch.cat((bank[:300], bank[-300:])), torch.arange(6000) // 100
    index = BankIndex.build(bank, groups=groups, product=product)
    with AllocationWatch() as watch:
        nearest(
            queries, index, 9, memory_limit_bytes=limit_mib * MIB, exclude_groups=groups[:600] if exclusion else None
        )
    results_bytes = 600 * 9 * (4 + 8)
    assert watch.peak_bytes <= limit_mib * MIB + results_bytes


@pytest.mark.parametrize("product", SearchProduct)
def test_concurrent_searches_each_stay_within_their_limit(product: SearchProduct) -> None:
    """Threads share only the index, so a pool of N threads takes N times the limit, however many callers wait."""
    bank = torch.randn(4000, 256, generator=torch.Generator().manual_seed(0))
    index, queries = BankIndex.build(bank, product=product), bank[:300] + 1
    expected = nearest(queries, BankIndex.build(bank), 5)
    together = Barrier(3)

    def search(_: int) -> tuple[int, bool]:
        together.wait()
        with AllocationWatch() as watch:
            found = nearest(queries, index, 5, memory_limit_bytes=4 * MIB)
        return watch.peak_bytes, all(map(torch.equal, found, expected))

    with ThreadPoolExecutor(3) as pool:
        for peak_bytes, is_same in pool.map(search, range(3)):
            assert is_same
            assert peak_bytes <= 4 * MIB + 300 * 5 * (4 + 8)


def test_building_an_index_does_not_copy_the_bank() -> None:
    bank = torch.ones(50_000, 64)
    with AllocationWatch() as watch:
        BankIndex.build(bank)
    assert watch.peak_bytes < bank.nbytes / 3


@pytest.mark.parametrize(("bounds", "share"), [(Bfloat16Bounds, 1 / 2), (Int8Bounds, 1 / 4)])
def test_bounds_are_smaller_than_the_bank(bounds: type[Bfloat16Bounds | Int8Bounds], share: float) -> None:
    bank = torch.ones(20_000, 512)
    center = bank.mean(dim=0)
    with AllocationWatch() as watch:
        built = bounds.build(bank, center)
    assert watch.live_bytes == built.nbytes == pytest.approx(share * bank.nbytes, rel=0.12)
    assert watch.peak_bytes < (share + 0.12) * bank.nbytes


def test_selecting_a_coreset_does_not_copy_the_features() -> None:
    features = torch.randn(6000, 1536, generator=torch.Generator().manual_seed(0))
    with AllocationWatch() as watch:
        select_coreset(features, 60)
    assert watch.peak_bytes < features.nbytes / 2
