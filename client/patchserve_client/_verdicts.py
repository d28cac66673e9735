"""A verdict in words: what the shell, the pictures and `str(result)` say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchserve_client._types import AnomalyScore


def verdict_word(anomaly: AnomalyScore) -> str:
    return "anomalous" if anomaly.is_anomalous else "intact"


def ratio_text(anomaly: AnomalyScore, threshold: float = 1.0) -> str:
    """The ratio with two decimals, as in "1.38 x", on the side of the threshold where the verdict is.

    At threshold 1, an anomalous image never reads 1.00 x or less, and an intact one never reads more.

    Args:
        anomaly: judged with the sensitivity 1 / threshold.
        threshold: where the verdict turns, as a multiple of the reference's own threshold: ratios are multiples of the
            latter, too.
    """
    ratio = anomaly.ratio * threshold
    if not math.isfinite(ratio):
        return "over 999 x"
    shown, turn = round(100 * ratio), math.floor(100 * threshold + 1e-6)  # in hundredths
    shown = max(shown, turn + 1) if anomaly.is_anomalous else min(shown, turn)
    return f"{shown / 100:.2f} x"


def verdict_text(anomaly: AnomalyScore, threshold: float = 1.0) -> str:
    """The verdict and its ratio, as in "anomalous 1.38 x"; with another threshold than 1, that one too."""
    text = f"{verdict_word(anomaly)} {ratio_text(anomaly, threshold)}"
    return text if threshold == 1 else f"{text}, threshold {threshold:.3g} x"
