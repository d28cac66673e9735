"""Pixel metrics: how well score maps find damaged pixels. Memory does not grow with the number of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

# Histogram bins are the upper bits of float32, which have the same order as the numbers. They contain 11 bits of the
# mantissa: scores that differ by less than 0.05 % may count as equal.
_DROPPED_BITS = 12
_BINS = 2 ** (31 - _DROPPED_BITS)
_EIGHT_NEIGHBORS = np.ones((3, 3))


def stretched(score_map: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map (h, w) resized bilinearly to an image (H, W). Both have the same corners."""
    height_px, width_px = shape
    return np.asarray(Image.fromarray(score_map).resize((width_px, height_px), Image.Resampling.BILINEAR))


class PixelHistograms:
    """Histograms of the scores of intact and damaged pixels, filled image by image."""

    def __init__(self) -> None:
        self._intact = np.zeros(_BINS, np.int64)  # pixels outside all masks, by score
        self._damaged = np.zeros(_BINS, np.int64)
        self._shares = np.zeros(_BINS)  # each damaged pixel's share of its region
        self.region_count = 0

    def add(self, score_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Count one image. The map is resized bilinearly to the mask.

        Args:
            score_map: (h, w) 0 or more, for the whole image.
            mask: (H, W) True for damaged pixels.

        Raises:
            ValueError: a score is negative or not finite.
        """
        if not (score_map.min() >= 0 and np.isfinite(score_map.max())):
            raise ValueError("A score map must hold finite numbers of 0 or more.")
        scores = stretched(score_map, mask.shape) + np.float32(0)  # + 0 turns -0.0 into 0.0
        bins = scores.view(np.uint32) >> _DROPPED_BITS  # (H, W)
        self._intact += np.bincount(bins[~mask], minlength=_BINS)
        if not mask.any():
            return
        regions, count = ndimage.label(mask, _EIGHT_NEIGHBORS)  # (H, W) 1.. inside, 0 outside
        areas_px = np.bincount(regions[mask])
        self.region_count += count
        self._damaged += np.bincount(bins[mask], minlength=_BINS)
        self._shares += np.bincount(bins[mask], 1 / areas_px[regions[mask]], minlength=_BINS)

    def auroc(self) -> float | None:
        """The probability that a damaged pixel scores above an intact one; None if one of them is missing."""
        if not self._is_complete():
            return None
        truth, bins, weights = self._weighted(self._damaged)
        return float(roc_auc_score(truth, bins, sample_weight=weights))

    def aupro(self, max_false_positive_rate: float = 0.3) -> float | None:
        """The area under the per-region overlap up to a false positive rate, as a share of the largest possible area.

        Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset". The mean overlap of regions is the true positive
        rate of pixels with the weight 1 / area of their region. None if there are no intact or no damaged pixels.
        """
        if not self._is_complete():
            return None
        truth, bins, weights = self._weighted(self._shares)
        false_rates, overlaps, _ = roc_curve(truth, bins, sample_weight=weights)
        inside = false_rates <= max_false_positive_rate
        overlap_at_limit = np.interp(max_false_positive_rate, false_rates, overlaps)
        false_rates = np.append(false_rates[inside], max_false_positive_rate)
        overlaps = np.append(overlaps[inside], overlap_at_limit)
        return float(auc(false_rates, overlaps) / max_false_positive_rate)

    def average_precision(self) -> float | None:
        """The precision of pixels, averaged over the damaged ones by score; None as for `auroc`.

        Unlike the AUROC, it shows whether small damage stands out: a clean pixel counts as much as a damaged one.
        """
        if not self._is_complete():
            return None
        truth, bins, weights = self._weighted(self._damaged)
        return float(average_precision_score(truth, bins, sample_weight=weights))

    def _is_complete(self) -> bool:
        return bool(self._intact.any() and self._damaged.any())

    def _weighted(
        self, damaged: NDArray[np.generic]
    ) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
        """Label, score and weight of every bin that is not empty."""
        intact_bins, damaged_bins = self._intact.nonzero()[0], damaged.nonzero()[0]
        truth = np.repeat([False, True], [intact_bins.size, damaged_bins.size])
        weights = np.concatenate([self._intact[intact_bins], damaged[damaged_bins]])
        return truth, np.concatenate([intact_bins, damaged_bins]), weights
