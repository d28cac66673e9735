"""The rows that a query must not find: those of its own image, or those too far from its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.near_places import NearPlaces


@dataclass(frozen=True, slots=True, eq=False)
class RowExclusion:
    """Which rows of a bank each query must not find."""

    index: BankIndex
    exclude_groups: Tensor | None  # (Q,) integer: rows of this group are excluded
    near: NearPlaces | None  # of the queries: rows at other places are excluded

    def __post_init__(self) -> None:
        if self.exclude_groups is not None and self.index.groups is None:
            raise ValueError("This index has no groups, so no group can be excluded.")
        if self.near is not None and self.index.places is None:
            raise ValueError("This index has no places, so no place can be excluded.")

    def for_queries(self, queries: slice | Tensor) -> RowExclusion:
        """The same for a part of the queries."""
        groups = None if self.exclude_groups is None else self.exclude_groups[queries]
        near = None if self.near is None else self.near.for_queries(queries)
        return RowExclusion(self.index, groups, near)

    def apply(self, scores: Tensor, rows: slice) -> None:
        """Sets the scores (Q, len(rows)) of excluded rows to infinity, in place."""
        if self.exclude_groups is not None and self.index.groups is not None:
            scores.masked_fill_(self.exclude_groups[:, None] == self.index.groups[rows], torch.inf)
        if self.near is not None and self.index.places is not None:
            scores.masked_fill_(self.near.hides(self.index.places[rows]), torch.inf)
