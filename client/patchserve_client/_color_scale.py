"""The colors of the server's heat maps, for the legend of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchserve_client._choices import HeatmapScale

if TYPE_CHECKING:  # the first picture loads NumPy
    import numpy as np
    from numpy.typing import NDArray

_LEVEL_AT_THRESHOLD = 150 / 255
_CALIBRATED_WEIGHT = 0.6  # of the color where the heat is highest
_RELATIVE_WEIGHT = 0.5
_UNDERLAY_GRAY = 128  # the scale is drawn as a heat map over gray looks


def scale_colors(scale: HeatmapScale, count: int) -> NDArray[np.uint8]:
    """The scale from cold to hot: (count, 3) RGB. CALIBRATED begins at 0 and ends at twice the threshold."""
    import numpy as np  # noqa: PLC0415 - loaded on first use

    shares = np.linspace(0, 1, count)
    if scale is HeatmapScale.RELATIVE:
        return _over_gray(shares, np.full(count, _RELATIVE_WEIGHT))
    below, above = (2 * shares).clip(0, 1), (2 * shares - 1).clip(0, 1)
    levels = _LEVEL_AT_THRESHOLD * below**2 + (1 - _LEVEL_AT_THRESHOLD) * above
    return _over_gray(levels, _CALIBRATED_WEIGHT * levels)


def _over_gray(levels: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The colors of the levels (N,) 0 to 1 in JET, over gray with the weights (N,)."""
    import numpy as np  # noqa: PLC0415 - loaded on first use

    peaks = np.array([3.0, 2.0, 1.0])  # where red, green and blue are highest, in quarters of the scale
    jet = (1.5 - np.abs(4 * levels[:, None] - peaks)).clip(0, 1) * 255  # (N, 3)
    colors: NDArray[np.uint8] = np.rint(jet * weights[:, None] + _UNDERLAY_GRAY * (1 - weights[:, None])).astype(
        np.uint8
    )
    return colors
