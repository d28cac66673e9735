"""The subspace in which normal patch vectors lie, and how far others are from it (SubspaceAD, arXiv 2602.23013)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.engine.search.parallel import use_torch_threads

EXPLAINED_VARIANCE = 0.99
"""The share of the variance of normal patches that the subspace explains, as in the paper."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchSums:
    """Sums over patch vectors, all that a fit needs. They are added image by image, and an image can be taken out."""

    count: int
    vectors: Tensor  # (D,) float64, the sum of x
    products: Tensor  # (D, D) float64, the sum of x x^T

    @classmethod
    def of(cls, patches: Tensor) -> PatchSums:
        """The sums over patches (Q, D) float32."""
        exact = patches.double()
        return cls(len(exact), exact.sum(dim=0), exact.T @ exact)

    def __add__(self, other: PatchSums) -> PatchSums:
        return PatchSums(self.count + other.count, self.vectors + other.vectors, self.products + other.products)

    def __sub__(self, other: PatchSums) -> PatchSums:
        return PatchSums(self.count - other.count, self.vectors - other.vectors, self.products - other.products)

    @property
    def root_mean_square(self) -> float:
        """Of the lengths of the vectors."""
        return float((self.products.trace() / self.count).clamp(min=0).sqrt())


@dataclass(frozen=True, slots=True, eq=False)
class PatchSubspace:
    """The mean of normal patches, and the directions in which they vary. On the device of its vectors."""

    mean: Tensor  # (D,) float32
    basis: Tensor  # (R, D) float32, orthonormal rows, the direction of the largest variance first

    @classmethod
    def fit(cls, sums: PatchSums) -> PatchSubspace:
        """The fewest principal components that explain the share of the variance, at least one."""
        mean = sums.vectors / sums.count
        covariance = sums.products / sums.count - torch.outer(mean, mean)
        variances, directions = _eigh(covariance)
        explained = variances.flip(0).clamp(min=0).cumsum(0)
        components = 1 + int((explained < EXPLAINED_VARIANCE * explained[-1]).sum())
        return cls(mean.float(), directions.T.flip(0)[:components].float().contiguous())

    def distances(self, patches: Tensor) -> Tensor:
        """The length of what the subspace leaves of each patch: (..., D) float32 to (...)."""
        centered = patches - self.mean
        residuals = centered - centered @ self.basis.T @ self.basis
        distances: Tensor = torch.linalg.vector_norm(residuals, dim=-1)
        return distances

    @property
    def nbytes(self) -> int:
        return self.mean.nbytes + self.basis.nbytes


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues, ascending, and the eigenvectors as columns, of a symmetric matrix.

    On one thread: on several, LAPACK is no faster, and many times slower on busy cores.
    """
    threads = torch.get_num_threads()
    use_torch_threads(1)
    try:
        values, vectors = torch.linalg.eigh(matrix)
    finally:
        use_torch_threads(threads)
    return values, vectors
