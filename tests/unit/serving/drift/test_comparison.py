"""Recent scores against normal scores: rarely an alarm without a change, and the right one with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.drift import DriftState
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.serving.drift.comparison import (
    MIN_RECENT,
    WINDOW,
    compare,
    is_comparable,
    scene_probability,
    state_after,
)

COUNTS = [4, 12, 120]  # reference images
Scores = np.ndarray


def calibration(scores: Scores, method: CalibrationMethod = CalibrationMethod.LEAVE_ONE_OUT) -> Calibration:
    threshold = float(np.mean(scores) + 2 * np.std(scores))
    return Calibration(method, threshold, threshold, ScoreSpread.of(scores.tolist()))


def drawn(rng: np.random.Generator, count: int) -> Scores:
    return rng.gumbel(20.0, 1.5, count)


def state_with(change: Callable[[Scores], Scores], references: int, seed: int = 1) -> DriftState:
    rng = np.random.default_rng(seed)
    normal, recent = drawn(rng, references), drawn(rng, WINDOW)
    return compare(tuple(change(recent)), calibration(normal)).state


@pytest.mark.parametrize("references", COUNTS)
def test_images_like_those_of_the_reference_are_rarely_called_otherwise(references: int) -> None:
    states = [state_with(lambda scores: scores, references, seed) for seed in range(200)]
    assert sum(state is DriftState.SCENE_CHANGED for state in states) == 0
    assert sum(state is not DriftState.NONE for state in states) <= 8  # of 2 windows, 1 % each: 4 are expected at most


@pytest.mark.parametrize("references", COUNTS)
@pytest.mark.parametrize("change", [lambda scores: 1.6 * scores, lambda scores: 0.5 * scores], ids=["up", "down"])
def test_a_shift_of_all_scores_is_another_scene(change: Callable[[Scores], Scores], references: int) -> None:
    assert state_with(change, references) is DriftState.SCENE_CHANGED


@pytest.mark.parametrize("references", COUNTS)
def test_a_large_shift_is_told_after_few_images(references: int) -> None:
    rng = np.random.default_rng(3)
    recent = np.concatenate((drawn(rng, WINDOW - MIN_RECENT), 2 * drawn(rng, MIN_RECENT)))
    assert compare(tuple(recent), calibration(drawn(rng, references))).state is DriftState.SCENE_CHANGED


@pytest.mark.parametrize(("references", "share"), [(12, 0.45), (120, 0.1)])
def test_more_images_far_above_the_others_are_more_damage(references: int, share: float) -> None:
    def damaged(scores: Scores) -> Scores:
        scores[: int(share * len(scores))] += 20
        return np.random.default_rng(0).permutation(scores)

    assert state_with(damaged, references) is DriftState.MORE_DAMAGE


@pytest.mark.parametrize("references", COUNTS)
def test_damage_of_up_to_half_of_the_images_is_no_other_scene(references: int) -> None:
    def damaged(scores: Scores) -> Scores:
        scores[: len(scores) // 2] += 20
        return np.random.default_rng(0).permutation(scores)

    states = [state_with(damaged, references, seed) for seed in range(100)]
    assert sum(state is DriftState.SCENE_CHANGED for state in states) <= 2


@given(
    scores=st.lists(st.floats(0, 100), min_size=32, max_size=60),
    normal=st.lists(st.floats(0, 100), min_size=3, max_size=20),
    raised=st.floats(0, 1e6),
)
@settings(deadline=None, max_examples=50)
def test_damage_changes_nothing_unless_it_is_in_half_of_the_images(
    scores: list[float], normal: list[float], raised: float
) -> None:
    """Images above the middle may get any higher score: the lower half, which decides, stays as it is."""
    ordered = np.sort(scores)
    higher = ordered.copy()
    higher[len(ordered) // 2 :] += raised
    assert scene_probability(higher, np.sort(normal)) >= scene_probability(ordered, np.sort(normal))


@given(value=st.floats(0, 100), references=st.sampled_from(COUNTS))
@settings(deadline=None, max_examples=20)
def test_equal_scores_are_no_drift(value: float, references: int) -> None:
    compared = compare((value,) * MIN_RECENT, calibration(np.full(references, value)))
    assert compared.state is DriftState.NONE
    assert compared.shift == 0.5
    assert compared.outlier_share == 0


def test_the_numbers_say_how_far_and_how_many() -> None:
    normal = np.arange(1.0, 11)
    recent = (*np.full(24, 5.5), *np.full(8, 100.0))
    compared = compare(recent, calibration(normal))
    assert compared.outlier_share == 0.25
    assert compared.shift == pytest.approx(0.75 * 0.5 + 0.25)


def test_only_scores_of_three_or_more_different_items_are_compared_with() -> None:
    assert is_comparable(calibration(np.array([1.0, 2, 3])))
    assert not is_comparable(calibration(np.array([1.0, 2])))
    assert not is_comparable(calibration(np.array([1.0, 2, 3]), CalibrationMethod.AUGMENTED_VIEWS))
    unknown = ScoreSpread(12, 1, 2, 0.5, 3)  # of a server that did not keep them
    assert not is_comparable(Calibration(CalibrationMethod.LEAVE_ONE_OUT, 3, 3, unknown))


def test_more_damage_must_be_found_twice_because_another_scene_begins_like_it() -> None:
    none, damage, scene = DriftState.NONE, DriftState.MORE_DAMAGE, DriftState.SCENE_CHANGED
    assert state_after(none, none, damage) is none
    assert state_after(none, damage, damage) is damage
    assert state_after(none, damage, scene) is scene
    assert state_after(damage, damage, damage) is damage
    assert state_after(damage, none, damage) is damage
    assert state_after(scene, scene, damage) is scene
    assert state_after(scene, damage, damage) is damage
    assert state_after(scene, scene, none) is none


@pytest.mark.parametrize("new_images", [4, 8, 10, 16, 20])
def test_another_scene_is_never_told_as_damage_on_its_way(new_images: int) -> None:
    """However the beginning of the change lies between two comparisons."""
    rng = np.random.default_rng(5)
    normal, told, found = calibration(drawn(rng, 12)), DriftState.NONE, DriftState.NONE
    line = np.concatenate((drawn(rng, WINDOW), 2 * drawn(rng, 64)))
    for end in range(WINDOW + new_images, len(line), 16):
        before, found = found, compare(tuple(line[:end]), normal).state
        told = state_after(told, before, found)
        assert told is not DriftState.MORE_DAMAGE
    assert told is DriftState.SCENE_CHANGED
