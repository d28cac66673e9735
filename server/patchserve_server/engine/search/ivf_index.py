"""Inverted file index (IVF, faiss): the rows of a large bank in cells, each row in the cell of its nearest centroid.

A query is compared only with the rows in the cells whose centroids are nearest to it. Why IVF, and what it costs in
accuracy: docs/adr/0010-ivf-index.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_ROWS = 10_000  # for smaller banks exact search is as fast
NPROBE = 32  # how many cells a query is compared with

_CELLS_PER_ROOT = 4  # cells: 4 sqrt(P)
_ITERATIONS = 5  # of k-means
_TRAINING_ROWS_PER_CELL = 32
_SEED = 1
_ROWS_PER_ASSIGNMENT = 65_536
_ID_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False)
class IvfIndex:
    """A copy of a bank's rows, grouped by cell. Equal banks have equal cells."""

    centroids: Tensor  # (L, D) float32
    _index: Any  # faiss.IndexIVFFlat

    def __post_init__(self) -> None:
        if tuple(self.centroids.shape) != (self._index.nlist, self._index.d):
            raise ValueError(f"{self._index.nlist} cells need one centroid each, not {tuple(self.centroids.shape)}.")

    @classmethod
    def build(cls, patches: Tensor) -> IvfIndex:
        """The index of a bank (P, D) float32 on the CPU. Takes seconds: 13 for 78,400 rows of 1536 features."""
        faiss = _faiss()
        faiss.omp_set_num_threads(1)  # so that the cells do not depend on the number of threads
        dim, cells = patches.shape[1], cell_count(len(patches))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, cells)
        index.cp.niter, index.cp.seed = _ITERATIONS, _SEED
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAINING_ROWS_PER_CELL
        index.train(patches.numpy())
        _fill(index, patches.numpy())
        return cls(torch.from_numpy(index.quantizer.reconstruct_n(0, cells)), index)

    def nearest(self, queries: Tensor, cells: Tensor, k: int, allowed_rows: Tensor | None = None) -> Tensor:
        """The rows (Q, k) int64 nearest to queries (Q, D) in the cells (Q, n) int64; -1 if the cells hold fewer.

        Each result is independent of the other queries. `allowed_rows` (P,) bool limits the search to these rows.
        """
        faiss = _faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())  # the setting belongs to the calling thread
        bitmap = None if allowed_rows is None else np.packbits(allowed_rows.numpy(), bitorder="little")
        selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
        params = faiss.SearchParametersIVF(nprobe=cells.shape[1], sel=selector)
        inputs = (queries.contiguous().numpy(), cells.contiguous().numpy(), torch.zeros(cells.shape).numpy())
        distances, rows = torch.empty((len(queries), k)), torch.empty((len(queries), k), dtype=torch.int64)
        vectors, probes, unused, *outputs = map(faiss.swig_ptr, (*inputs, distances.numpy(), rows.numpy()))
        # The Python wrapper of this method does not accept search parameters, the C++ method does.
        self._index.search_preassigned_c(len(queries), vectors, k, probes, unused, *outputs, False, params)
        return rows

    @property
    def nbytes(self) -> int:
        """The memory of faiss: the rows with their ids, and its copy of the centroids."""
        index = self._index
        return int(index.ntotal * (index.code_size + _ID_BYTES) + index.quantizer.ntotal * index.code_size)

    @staticmethod
    def predict_nbytes(rows: int, dim: int) -> int:
        """`nbytes` of the index of a bank (rows, dim)."""
        return rows * (4 * dim + _ID_BYTES) + 4 * cell_count(rows) * dim


def ivf_pays(rows: int, device: torch.device) -> bool:
    """Whether an IVF index makes a search of this many rows faster. On a GPU it does not."""
    return rows >= LEAST_ROWS and device.type == "cpu"


def cell_count(rows: int) -> int:
    return int(_CELLS_PER_ROOT * math.sqrt(rows))


def _fill(index: Any, patches: np.ndarray) -> None:  # noqa: ANN401
    """Creates the cells of `index.add(patches)` in a fifth less memory: each array gets its final size at once."""
    faiss = _faiss()
    parts = [patches[start : start + _ROWS_PER_ASSIGNMENT] for start in range(0, len(patches), _ROWS_PER_ASSIGNMENT)]
    cells = np.concatenate([index.quantizer.assign(part, 1)[:, 0] for part in parts])
    order = np.argsort(cells, kind="stable")
    ends = np.searchsorted(cells[order], np.arange(index.nlist), side="right")
    for cell, rows in enumerate(np.split(order, ends[:-1])):
        codes = patches[rows].view(np.uint8)
        index.invlists.add_entries(cell, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
    index.ntotal = len(patches)


def _faiss() -> Any:  # noqa: ANN401
    """Imported when the first IVF index is built: no other bank needs it."""
    import faiss  # noqa: PLC0415 - slow to import

    return faiss
