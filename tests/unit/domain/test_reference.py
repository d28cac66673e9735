"""Banks and calibrations refuse values that contradict each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from fakes.references import make_model
from numpy.typing import NDArray

MODEL = make_model()
BANK, CALIBRATION = MODEL.bank, MODEL.calibration


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"patches": BANK.patches.astype(np.float64)}, "array patches is not a non-empty float32 array with 2 axes"),
        ({"patches": BANK.patches[0]}, "patches"),
        ({"inputs": BANK.inputs[:0]}, "inputs"),
        ({"inputs": BANK.inputs[:, 1:]}, "square"),
        ({"inputs": BANK.inputs[..., :1]}, "RGB"),
        ({"image_index": BANK.image_index + np.int32(1)}, "an image that does not exist"),
        ({"image_index": BANK.image_index - np.int32(1)}, "an image that does not exist"),
        ({"grid_index": BANK.grid_index - np.int32(196)}, "grid_index has a negative value"),
        ({"grid_index": BANK.grid_index.astype(np.int64)}, "grid_index"),
        ({"spacing": BANK.spacing * np.float32(0)}, "spacing"),
        ({"spacing": BANK.spacing * np.float32(np.nan)}, "spacing"),
        ({"spacing": BANK.spacing * np.float32(np.inf)}, "spacing"),
        ({"spacing": BANK.spacing[1:]}, "differ in length"),
    ],
)
def test_a_bank_of_contradicting_arrays_is_refused(arrays: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BANK, **arrays)


def test_patches_may_have_any_values() -> None:
    dataclasses.replace(BANK, patches=BANK.patches * np.float32(np.nan))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["image_threshold", "patch_threshold"])
def test_a_threshold_is_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        dataclasses.replace(CALIBRATION, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["min", "mean", "stddev", "max"])
def test_a_spread_is_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="contradict"):
        dataclasses.replace(CALIBRATION.normal_scores, **{name: value})  # type: ignore[arg-type]
