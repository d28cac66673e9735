"""Banks and calibrations refuse values that contradict each other."""

from __future__ import annotations

import dataclasses
import math
from statistics import pstdev
from typing import Any

import numpy as np
import pytest
from fakes.references import make_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchserve_server.domain.reference import MAX_NORMAL_SCORES, ScoreSpread

MODEL = make_model()
BANK, CALIBRATION = MODEL.memory_bank, MODEL.calibration


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"patches": BANK.patches.astype(np.float64)}, "array patches is not a non-empty float32 array with 2 axes"),
        ({"patches": BANK.patches[0]}, "patches"),
        ({"inputs": BANK.inputs[:0]}, "inputs"),
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


def test_a_list_of_scores_agrees_with_the_numbers() -> None:
    spread = ScoreSpread.of([3.0, 1.0, 2.0])
    assert spread == ScoreSpread(3, 1.0, 2.0, pstdev([1, 2, 3]), 3.0, (1.0, 2.0, 3.0))
    for scores in ((1.0, 3.0), (1.0, 2.0, 2.5), (2.0, 2.0, 3.0), (1.0, 3.0, 2.0), (1.0, math.nan, 3.0)):
        with pytest.raises(ValueError, match="list of normal scores"):
            dataclasses.replace(spread, scores=scores)


@given(st.lists(st.floats(0, 1e100), min_size=1, max_size=1500))
def test_many_scores_are_thinned_out_evenly(scores: list[float]) -> None:
    spread = ScoreSpread.of(scores)
    assert spread.count == len(scores)
    assert len(spread.scores) == min(len(scores), MAX_NORMAL_SCORES)
    assert set(spread.scores) <= set(scores)
    if len(scores) <= MAX_NORMAL_SCORES:
        assert spread.scores == tuple(sorted(scores))
    for share in (0.1, 0.5, 0.9):
        listed, exact = np.quantile(spread.scores, share), np.quantile(scores, [share - 0.01, share + 0.01])
        assert exact[0] <= listed <= exact[1]
