"""Parallel search: the queries of one search on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES
from patchserve_server.engine.search.search_product import SearchProduct

_LEAST_PRODUCTS = 2**28  # multiplications for each thread; below that, another thread saves no time


def use_torch_threads(threads: int) -> None:
    """Sets the number of threads for torch operations of the calling thread."""
    torch.get_num_threads()  # without this read, the thread's first operation may change the number again
    torch.set_num_threads(threads)


class ParallelSearch:
    """`nearest` on several threads, with one memory limit for all callers together.

    Each thread searches for a part of the queries on its own. Torch's own threads would synchronize after every
    operation. This costs a third more processor time, and on busy cores they would wait for each other.
    """

    def __init__(
        self,
        threads: int = 1,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        *,
        product: SearchProduct = SearchProduct.FP32,
    ) -> None:
        """Results do not depend on the number of threads.

        Args:
            threads: how many search at the same time. A GPU needs only one.
            memory_limit_bytes: limit of the scratch memory of all threads together.
            product: the first product of searches in indexes that are built for this.
        """
        self.product = product
        self._threads = threads
        self._thread_limit_bytes = memory_limit_bytes // threads
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="search", initializer=use_torch_threads, initargs=(1,)
        )

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False)

    def nearest(
        self,
        queries: Tensor,
        index: BankIndex,
        k: int,
        *,
        exclude_groups: Tensor | None = None,
        near: NearPlaces | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`search.nearest.nearest` with the same arguments, results and errors."""

        @torch.inference_mode()  # inference mode is a setting of the thread
        def search(part: slice | Tensor) -> tuple[Tensor, Tensor]:
            return nearest(
                queries[part],
                index,
                k,
                memory_limit_bytes=self._thread_limit_bytes,
                exclude_groups=None if exclude_groups is None else exclude_groups[part],
                near=None if near is None else near.for_queries(part),
            )

        blocks = None if near is None else near.blocks()
        if blocks:
            return _in_order(blocks, list(self._pool.map(search, blocks)))
        parts = max(1, min(self._threads, queries.numel() * len(index) // _LEAST_PRODUCTS))
        size = max(1, -(-len(queries) // parts))
        slices = [slice(start, start + size) for start in range(0, max(1, len(queries)), size)]
        results = list(self._pool.map(search, slices))
        if len(results) == 1:
            return results[0]
        distances, rows = zip(*results, strict=True)
        return torch.cat(distances), torch.cat(rows)


def _in_order(blocks: Sequence[Tensor], results: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The results of blocks of queries, in the order of the queries."""
    order = torch.cat(list(blocks)).argsort()
    distances, rows = zip(*results, strict=True)
    return torch.cat(distances)[order], torch.cat(rows)[order]
