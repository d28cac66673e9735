"""Patch vectors, and inputs of nearest-neighbor searches."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

TINY_LIMIT_BYTES = 1  # one query and one row at a time
SMALL_LIMIT_BYTES = 4096


def vectors(count: int, dim: int, seed: int) -> Tensor:
    """(count, dim) float32, normally distributed."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def clustered(rows: int, seed: int = 0, dim: int = 16, clusters: int = 30) -> Tensor:
    """Vectors (rows, dim) float32 in clusters, as patch vectors of real images."""
    generator = torch.Generator().manual_seed(seed)
    centers = 4 * torch.randn((clusters, dim), generator=torch.Generator().manual_seed(99))
    return centers[torch.randint(clusters, (rows,), generator=generator)] + torch.randn(
        (rows, dim), generator=generator
    )


def true_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """Distances (Q, P) float64, computed from differences."""
    distances: Tensor = torch.linalg.vector_norm(queries.double()[:, None] - bank.double(), dim=2)
    return distances


@st.composite
def searches(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Queries, bank and k: of any scale, also far from the origin, with equal rows and queries on or near rows."""
    dim, rows, count = draw(st.integers(1, 40)), draw(st.integers(1, 60)), draw(st.integers(1, 12))
    seed, scale = draw(st.integers(0, 2**16)), draw(st.sampled_from([1e-3, 1.0, 1e3]))
    bank, queries = vectors(rows, dim, seed), vectors(count, dim, seed + 1)
    bank[: draw(st.integers(0, rows))] = bank[-1].clone()
    on_bank_rows = min(draw(st.integers(0, count)), rows)
    queries[:on_bank_rows] = bank[-on_bank_rows:] if on_bank_rows else queries[:0]
    queries[: on_bank_rows // 2] += 1e-4 * vectors(on_bank_rows // 2, dim, seed + 2)
    offset = draw(st.sampled_from([0.0, 1.0, 1e3]))
    return (queries + offset) * scale, (bank + offset) * scale, draw(st.integers(1, 12))
