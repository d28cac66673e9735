"""Chooses the fastest product and number of threads of exact searches, by measurement."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.words import counted
from patchserve_server.engine.measurements import Measurements
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch
from patchserve_server.engine.search.search_product import SearchProduct, can_multiply

AUTO = "auto"

_ROWS, _QUERIES, _NEIGHBORS = 4096, 784, 9
_CLEARLY_LESS = 0.8
_DIRECTIONS, _NOISE = 24, 0.15  # of the measured vectors: like those of an image, they are long in few directions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchChoice:
    """How exact searches run. It changes their speed only."""

    product: SearchProduct = SearchProduct.FP32
    threads: int = 1


def choose_search(
    dim: int, device: torch.device, measurements: Measurements, *, product: str, threads: int | None, cores: int
) -> SearchChoice:
    """The fastest way to search banks of patch vectors (P, D).

    Args:
        dim: D.
        device: of the banks. On a GPU there is nothing to choose.
        measurements: of this processor.
        product: a SearchProduct, or AUTO: the fastest one.
        threads: how many search at once; None: the fastest number up to `cores`.
        cores: the threads of the backbone.

    Raises:
        StartupError: the product is unknown, or this processor does not have it.
    """
    forced = None if product == AUTO else _checked(product, device)
    if device.type != "cpu":
        return SearchChoice()
    choice = SearchChoice(forced or SearchProduct.FP32, threads or cores)
    if forced is None:
        possible = [one for one in SearchProduct if can_multiply(one, device)]
        fastest = _fastest({one.value: replace(choice, product=one) for one in possible}, dim, measurements)
        choice = replace(choice, product=fastest.product)
    if threads is None:
        counts = sorted({1, max(1, cores // 2), cores}, reverse=True)
        choices = {counted(count, "thread"): replace(choice, threads=count) for count in counts}
        fastest = _fastest(choices, dim, measurements, preferred=counted(cores, "thread"))
        choice = replace(choice, threads=fastest.threads)
    return choice


def _checked(product: str, device: torch.device) -> SearchProduct:
    if product not in list(SearchProduct):
        raise StartupError(f'Unknown search product "{product}". Use {", ".join(SearchProduct)} or {AUTO}.')
    if not can_multiply(SearchProduct(product), device):
        raise StartupError(
            f"The search product {product} needs a processor with instructions for it, and {device} has none. "
            f"Use --search-product {SearchProduct.FP32.value} or --search-product {AUTO}."
        )
    return SearchProduct(product)


def _fastest(
    choices: dict[str, SearchChoice], dim: int, measurements: Measurements, *, preferred: str = ""
) -> SearchChoice:
    """`preferred`: the one to choose unless another takes clearly less time."""
    if len(choices) == 1:
        return next(iter(choices.values()))
    queries, bank = _vectors(_QUERIES, dim, seed=1), _vectors(_ROWS, dim, seed=2)
    searches: dict[str, _MeasuredSearch] = {}
    for name, choice in choices.items():
        searches[name] = _MeasuredSearch(queries, bank, choice)
    try:
        given = sorted({f"{choice.product} on {counted(choice.threads, 'thread')}" for choice in choices.values()})
        times_ms = measurements.times_ms(f"search of {dim} features, {', '.join(given)}", dict(searches))
    finally:
        for search in searches.values():
            search.close()
    fastest = min(times_ms, key=times_ms.__getitem__)
    if preferred and times_ms[fastest] > _CLEARLY_LESS * times_ms[preferred]:
        fastest = preferred
    _log.info("Search is fastest with %s (%s)", fastest, ", ".join(f"{k} {ms:.1f} ms" for k, ms in times_ms.items()))
    return choices[fastest]


class _MeasuredSearch:
    """One search of a choice. Its index is built at the first call, which is not measured."""

    def __init__(self, queries: Tensor, bank: Tensor, choice: SearchChoice) -> None:
        self._queries, self._bank, self._choice = queries, bank, choice
        self._search = ParallelSearch(choice.threads, product=choice.product)
        self._index: BankIndex | None = None

    @torch.inference_mode()
    def __call__(self) -> None:
        if self._index is None:
            self._index = BankIndex.build(self._bank, product=self._choice.product)
        self._search.nearest(self._queries, self._index, _NEIGHBORS)

    def close(self) -> None:
        self._search.close()


def _vectors(count: int, dim: int, *, seed: int) -> Tensor:
    """Made-up patch vectors (count, dim) float32."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(_DIRECTIONS, dim, generator=torch.Generator().manual_seed(0))
    vectors: Tensor = torch.randn(count, _DIRECTIONS, generator=generator) @ directions / _DIRECTIONS**0.5
    return vectors + _NOISE * torch.randn(count, dim, generator=generator)
