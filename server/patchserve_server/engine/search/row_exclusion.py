"""The rows that a query must not find: those of its own image, or those too far from its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex


@dataclass(frozen=True, slots=True, eq=False)
class RowExclusion:
    """Which rows of a bank each query must not find."""

    index: BankIndex
    exclude_groups: Tensor | None  # (Q,) integer: rows of this group are excluded
    visible_places: Tensor | None  # (Q, G) bool: rows at places where it is false are excluded

    def __post_init__(self) -> None:
        if self.exclude_groups is not None and self.index.groups is None:
            raise ValueError("This index has no groups, so no group can be excluded.")
        if self.visible_places is not None and self.index.places is None:
            raise ValueError("This index has no places, so no place can be excluded.")

    def for_queries(self, queries: slice | Tensor) -> RowExclusion:
        """The same for a part of the queries."""
        groups = None if self.exclude_groups is None else self.exclude_groups[queries]
        places = None if self.visible_places is None else self.visible_places[queries]
        return RowExclusion(self.index, groups, places)

    def apply(self, scores: Tensor, rows: slice) -> None:
        """Sets the scores (Q, len(rows)) of excluded rows to infinity, in place."""
        if self.exclude_groups is not None and self.index.groups is not None:
            scores.masked_fill_(self.exclude_groups[:, None] == self.index.groups[rows], torch.inf)
        if self.visible_places is not None and self.index.places is not None:
            scores.masked_fill_(self.visible_places[:, self.index.places[rows]].logical_not_(), torch.inf)
