"""Inverted lists (faiss): the rows of a large bank by the centroid that each is nearest to.

A query then looks only into the lists of the centroids nearest to it. Why this method, with which loss: docs/adr/0010.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_ROWS = 10_000  # fewer are searched as fast without
PROBES = 32  # how many lists a query looks into

_LISTS_PER_ROOT = 4  # times the root of the number of rows
_ITERATIONS = 5
_LEARNED_FROM = 32  # rows for each list
_SEED = 1


@dataclass(frozen=True, slots=True, eq=False)
class IvfIndex:
    """A copy of a bank's rows, list by list. Equal banks have equal lists."""

    centroids: Tensor  # (L, D) float32
    _faiss: Any
    _index: Any

    @classmethod
    def of(cls, patches: Tensor) -> IvfIndex | None:
        """The lists of a bank (P, D) float32; None for a small one and on a GPU, where they gain nothing."""
        if len(patches) < LEAST_ROWS or patches.device.type != "cpu":
            return None
        faiss = importlib.import_module("faiss")  # only here: no other bank waits for it
        faiss.omp_set_num_threads(1)  # so that the lists do not depend on how many threads there are
        dim, count = patches.shape[1], int(_LISTS_PER_ROOT * math.sqrt(len(patches)))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, count)
        index.cp.niter, index.cp.seed = _ITERATIONS, _SEED
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _LEARNED_FROM
        index.train(patches.numpy())
        index.add(patches.numpy())
        return cls(torch.from_numpy(index.quantizer.reconstruct_n(0, count)), faiss, index)

    def nearest(self, queries: Tensor, lists: Tensor, k: int, visible: Tensor | None = None) -> Tensor:
        """The rows (Q, k) int64 nearest to queries (Q, D) within lists (Q, n) int64; -1 where there are no more.

        No result depends on the other queries. `visible` (P,) bool says which rows may be found.
        """
        faiss = self._faiss
        faiss.omp_set_num_threads(torch.get_num_threads())  # each thread that searches has its own setting
        selector = None if visible is None else faiss.IDSelectorBitmap(np.packbits(visible.numpy(), bitorder="little"))
        params = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector)
        given = [queries.contiguous().numpy(), lists.contiguous().numpy(), torch.zeros(lists.shape).numpy()]
        distances, rows = torch.empty((len(queries), k)), torch.empty((len(queries), k), dtype=torch.int64)
        vectors, probes, unused, found, at = map(faiss.swig_ptr, (*given, distances.numpy(), rows.numpy()))
        # faiss' own wrapper for Python takes no parameters here.
        self._index.search_preassigned_c(len(queries), vectors, k, probes, unused, found, at, False, params)
        return rows
