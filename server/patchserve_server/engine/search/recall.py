"""How many of the nearest rows an approximate search finds, measured on the bank itself."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch

_SAMPLED_ROWS = 128


def measure_recall(index: BankIndex, groups: Tensor, k: int, search: ParallelSearch) -> float:
    """The share of the k nearest rows of other images that a search finds for some rows of the bank; 1: all.

    Args:
        index: the bank, P rows.
        groups: (P,) int32, the image that each row comes from. If all come from one, none is left out.
        k: at least 1.
        search: finds the rows.
    """
    if index.ivf is None:
        return 1.0
    sample = torch.arange(0, len(index), -(-len(index) // _SAMPLED_ROWS))
    grouped = replace(index, groups=groups)
    exact = replace(grouped, ivf=None, centroids=None)
    excluded = groups[sample] if bool((groups != groups[0]).any()) else None
    found, expected = (
        search.nearest(index.patches[sample], one, k, exclude_groups=excluded)[1] for one in (grouped, exact)
    )
    is_found = (expected[:, :, None] == found[:, None]).any(dim=2)
    return float(is_found[expected >= 0].float().mean())
