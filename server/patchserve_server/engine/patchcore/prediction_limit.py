"""How often other normal scores exceed a limit, from a few normal scores (docs/adr/0016)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95

_SMALLEST_SPREAD = 1e-3  # relative to the scores: smaller differences are rounding errors
_LOG_SCALES = (-6.0, 30.0)  # of the possible scales, relative to the standard deviation of the scores
_COARSE_SCALES = 721
_FINE_SCALES = 513
_SMALLEST_UNIT = 1e-100  # of scores that are all 0; a smaller one would make other scores infinite
_NEGLIGIBLE = 1e-14
_HALVINGS = 100


@dataclass(frozen=True, slots=True, eq=False)
class ScorePrediction:
    """What a sample of normal scores says about the next one.

    An image score is an extreme value, so normal scores have a Gumbel distribution of unknown location and scale. The
    weight of each location and scale is the right-invariant prior times the likelihood of the sample. With these
    weights, rates and bounds are exact for any location, any scale and any number of scores: over many samples, the
    true rate at `limit_of(r)` is r on average, and below `rate_bound` in 95 of 100.
    """

    count: int
    center: float  # scores are computed as (score - center) / unit
    unit: float
    scales: NDArray[np.float64]  # (S,) the possible scales
    weights: NDArray[np.float64]  # (S,) of the scales, 1 in total
    log_sums: NDArray[np.float64]  # (S,) log of the sum of exp(-score / scale) over the sample

    @classmethod
    def of(cls, scores: Sequence[float]) -> Self:
        """The prediction from two or more finite scores."""
        sample = np.sort(np.array(scores, np.float64))  # sums depend on the order
        center = float(sample.mean())
        unit = max(float(sample.std(ddof=1)), _SMALLEST_SPREAD * abs(center), _SMALLEST_UNIT)
        sample = (sample - center) / unit
        coarse = np.linspace(*_LOG_SCALES, _COARSE_SCALES)
        weights, _ = _weigh(sample, np.exp(coarse))
        possible = (weights > _NEGLIGIBLE * weights.max()).nonzero()[0]
        first, last = max(0, possible[0] - 1), min(len(coarse) - 1, possible[-1] + 1)
        scales = np.exp(np.linspace(coarse[first], coarse[last], _FINE_SCALES))
        return cls(len(sample), center, unit, scales, *_weigh(sample, scales))

    def rate_above(self, limit: float) -> float:
        """The probability that another normal score is above the limit."""
        return self._rate_above((limit - self.center) / self.unit)

    def rate_bound(self, limit: float) -> float:
        """What the rate of normal scores above the limit is below, with a confidence of 95 %. At least `rate_above`."""
        scaled = (limit - self.center) / self.unit
        log_sums = self.log_sums + scaled / self.scales  # (S,) as if the limit were the zero of all scores
        shape = torch.full((len(log_sums),), float(self.count), dtype=torch.float64)

        def confidence(log_rate: float) -> float:
            """That of the rate 1 - exp(-exp(log_rate)); for each scale, exp(location / scale) is gamma distributed."""
            bounds = torch.from_numpy(np.exp(np.clip(log_rate + log_sums, -700, 700)))
            return float(self.weights @ torch.special.gammainc(shape, bounds).numpy())

        log_rate = _smallest(lambda value: confidence(value) >= CONFIDENCE, -700.0, 7.0)
        return max(-math.expm1(-math.exp(log_rate)), self.rate_above(limit))

    def limit_of(self, rate: float) -> float:
        """The limit that another normal score exceeds with this probability, above 0 and below 1."""
        reach = 1.0
        while self._rate_above(reach) > rate:
            reach *= 2
        scaled = _smallest(lambda value: self._rate_above(value) <= rate, -reach, reach)
        return self.center + self.unit * scaled

    def _rate_above(self, scaled: float) -> float:
        exceedances = np.logaddexp(0, -scaled / self.scales - self.log_sums)  # (S,)
        return float(self.weights @ -np.expm1(-self.count * exceedances))


def _weigh(sample: NDArray[np.float64], scales: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weights (S,) of scales (S,) that are evenly spaced by their logarithm, and the log of the sums (S,).

    The weight of a scale is the likelihood of the sample and the right-invariant prior, integrated over the location.
    """
    log_sums = functools.reduce(np.logaddexp, (-score / scales for score in sample))
    log_weights = (1 - len(sample)) * np.log(scales) - sample.sum() / scales - len(sample) * log_sums
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum(), log_sums


def _smallest(is_enough: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest value that is enough, by halving the interval; `high` is enough."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
