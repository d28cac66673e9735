"""The scores of patches: all that is kept of an image once its patches were searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The nearest bank rows of each patch of each image, nearest first."""

    distances: Tensor  # (B, P, k) float32; infinity if there are fewer than k
    rows: Tensor  # (B, P, k) int64; -1 if there are fewer than k
    is_complete: bool = False  # whether none is missing for sure, so that nothing must look for it


@dataclass(frozen=True, slots=True, eq=False)
class PatchScores:
    """The scores of some or all patches of each image, and what the image score needs besides."""

    positions: Tensor  # (P,) int64, in the patch grid
    distances: Tensor  # (B, P) float32, mean of the nearest rows
    spacing: Tensor  # (B, P) float32, of the nearest rows
    worst: WorstPatches | None  # only for PAPER

    @classmethod
    def join(cls, parts: Sequence[PatchScores]) -> PatchScores:
        """The scores of all parts of the same images."""
        if len(parts) == 1:
            return parts[0]
        return cls._concatenated(parts, torch.cat([part.positions for part in parts]), dim=1)

    @classmethod
    def stack(cls, parts: Sequence[PatchScores]) -> PatchScores:
        """The scores of the images of all parts, at the same positions."""
        return parts[0] if len(parts) == 1 else cls._concatenated(parts, parts[0].positions, dim=0)

    @classmethod
    def _concatenated(cls, parts: Sequence[PatchScores], positions: Tensor, dim: int) -> PatchScores:
        worst = [part.worst for part in parts if part.worst is not None]
        return cls(
            positions,
            torch.cat([part.distances for part in parts], dim),
            torch.cat([part.spacing for part in parts], dim),
            WorstPatches.concatenated(worst, dim) if worst else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class WorstPatches:
    """The patch with the highest score of each part of each image."""

    distances: Tensor  # (B, C) float32; -infinity if no patch of the part counts
    rows: Tensor  # (B, C) int64, the nearest row
    vectors: Tensor  # (B, C, D) float32

    @classmethod
    def of(cls, distances: Tensor, rows: Tensor, patches: Tensor, counted: Tensor | None) -> WorstPatches:
        """Of one part: distances and rows (B, P), patches (B, P, D), and which of them count (P,); None: all."""
        among = distances if counted is None else distances.where(counted, -torch.inf)
        highest, worst = among.max(dim=1)
        each = torch.arange(len(worst), device=worst.device)
        return cls(highest[:, None], rows[each, worst][:, None], patches[each, worst][:, None])

    @classmethod
    def concatenated(cls, parts: Sequence[WorstPatches], dim: int) -> WorstPatches:
        """`dim`: 0: of the images of all parts; 1: of all parts of the same images."""
        return cls(
            torch.cat([part.distances for part in parts], dim),
            torch.cat([part.rows for part in parts], dim),
            torch.cat([part.vectors for part in parts], dim),
        )
