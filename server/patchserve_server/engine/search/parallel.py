"""Searches of banks, spread over threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from patchserve_server.engine.search.exact import DEFAULT_MEMORY_LIMIT_BYTES, BankIndex, nearest

_LEAST_WORK = 2**28  # products of two numbers: less than this is not worth another thread


class ParallelSearch:
    """`nearest` within one bound on memory, however many callers there are.

    Each thread has some of the queries and computes by itself: torch's own threads would meet after every operation,
    which costs a third more processor time, and wait for each other where others want the same cores.
    """

    def __init__(self, threads: int = 1, memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES) -> None:
        """No result depends on the number of threads.

        Args:
            threads: how many search at once. A GPU needs only one.
            memory_limit_bytes: bound on the scratch memory of all of them together.
        """
        self._threads = threads
        self._limit_bytes = memory_limit_bytes // threads
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="search", initializer=torch.set_num_threads, initargs=(1,)
        )

    def nearest(
        self,
        queries: Tensor,
        index: BankIndex,
        k: int,
        *,
        exclude_groups: Tensor | None = None,
        visible_places: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`neighbors.nearest` with the same arguments."""
        work = queries.numel() * len(index)
        size = -(-len(queries) // max(1, min(self._threads, work // _LEAST_WORK)))

        @torch.inference_mode()  # holds for one thread
        def search(start: int) -> tuple[Tensor, Tensor]:
            part = slice(start, start + size)
            return nearest(
                queries[part],
                index,
                k,
                memory_limit_bytes=self._limit_bytes,
                exclude_groups=None if exclude_groups is None else exclude_groups[part],
                visible_places=None if visible_places is None else visible_places[part],
            )

        found = list(self._pool.map(search, range(0, max(1, len(queries)), max(1, size))))
        if len(found) == 1:
            return found[0]
        distances, rows = zip(*found, strict=True)
        return torch.cat(distances), torch.cat(rows)
