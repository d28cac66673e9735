"""Anomaly maps: one hot spot, and any map (strategies for Hypothesis)."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

anomaly_maps = arrays.arrays(np.float32, (16, 16), elements=st.floats(0, 10, width=32))
roi_masks = arrays.arrays(np.bool_, (16, 16)).filter(np.any)


def hot_spot(size: int = 224, peak: float = 6.0) -> np.ndarray:
    """A map (S, S) with a hot spot at a quarter from the left and half way down."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    heat = np.exp(-((columns - 0.25) ** 2 + (rows - 0.5) ** 2) / 0.005)
    return np.asarray(0.5 + (peak - 0.5) * heat, np.float32)
