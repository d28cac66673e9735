"""Reference views: which there are, whose they are, and what they change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fakes.engine import cards, ignore_progress

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.input_options import InputOptions
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.domain.reference_options import (
    CoresetOptions,
    ReferenceOptions,
    ReferenceViews,
    RequestedOptions,
    ScoringProfile,
)
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.reference_views import spreads_no_more, views_of, with_views

ALL, AUTO, NONE = ReferenceViews.ALL, ReferenceViews.AUTO, ReferenceViews.NONE


def fit(detector: PatchCoreDetector, images: int, **options: object) -> Scorer:
    return detector.fit(cards(*range(1, images + 1)), ReferenceOptions(**options), ignore_progress)  # type: ignore[arg-type]


def image_scores(scorer: Scorer, inputs: np.ndarray) -> list[float]:
    return [scores.image_score for scores in scorer.score(inputs)[0]]


@pytest.mark.parametrize(
    ("turned", "scales", "is_square", "count"),
    [(False, 1, True, 1), (True, 1, True, 8), (True, 1, False, 4), (False, 3, True, 3), (True, 2, False, 5)],
)
def test_views_are_the_image_itself_and_others(turned: bool, scales: int, is_square: bool, count: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32 if is_square else 64, 3), dtype=np.uint8)
    views = views_of(turned=turned, scales=scales, is_square=is_square)
    made = with_views(image[None], views)
    assert made.shape == (count, *image.shape)
    assert len({view.tobytes() for view in made}) == count
    np.testing.assert_array_equal(made[0], image)


def test_turned_views_are_all_symmetries_of_a_square() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[2, 5] = 255
    places = {
        tuple(int(place[0]) for place in np.nonzero(view[..., 0]))
        for view in with_views(image[None], views_of(turned=True, scales=1, is_square=True))
    }
    assert places == {(2, 5), (5, 2), (29, 5), (5, 29), (2, 26), (26, 2), (29, 26), (26, 29)}


def test_a_zoomed_view_shows_the_middle_larger_or_smaller() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:40, 24:40] = 255
    _, smaller, larger = with_views(image[None], views_of(turned=False, scales=3, is_square=True))
    assert smaller.mean() < image.mean() < larger.mean()


def test_rows_of_views_belong_to_their_image(detector: PatchCoreDetector) -> None:
    bank = fit(detector, 3, views=ALL, scales=2).model.memory_bank
    assert len(bank.inputs) == 3
    np.testing.assert_array_equal(bank.image_index, np.repeat([0, 1, 2], 9 * 196))
    assert bank.grid_index.max() == 195


def test_a_turned_image_is_as_normal_as_the_image_itself(detector: PatchCoreDetector) -> None:
    turned = np.ascontiguousarray(np.rot90(cards(2), axes=(1, 2)))
    with_all, without = fit(detector, 3, views=ALL), fit(detector, 3)
    (score,), threshold = image_scores(with_all, turned), with_all.model.calibration.image_threshold
    (other,), other_threshold = image_scores(without, turned), without.model.calibration.image_threshold
    assert score <= threshold
    assert score / threshold < other / other_threshold


@pytest.mark.parametrize("images", [1, 2, 3])
def test_damage_is_still_found_with_views(detector: PatchCoreDetector, images: int) -> None:
    scorer = fit(detector, images, views=ALL)
    assert image_scores(scorer, cards(9, scratched=True))[0] > scorer.model.calibration.image_threshold


def test_normal_scores_leave_out_the_views_of_the_image(detector: PatchCoreDetector) -> None:
    """Else an image would find its own mirror image, and every score would be too low."""
    inputs = cards(1, 2, 3)
    mirrored = np.concatenate((inputs, inputs[:, :, ::-1]))
    with_all = detector.fit(mirrored, ReferenceOptions(views=ALL), ignore_progress).model.calibration
    without = detector.fit(mirrored, ReferenceOptions(), ignore_progress).model.calibration
    assert with_all.method is CalibrationMethod.LEAVE_ONE_OUT
    assert with_all.normal_scores.min > 0.5 * without.normal_scores.min


@pytest.mark.parametrize(("images", "tries"), [(4, True), (5, False)])
def test_auto_tries_views_with_few_images_only(detector: PatchCoreDetector, images: int, tries: bool) -> None:
    rows = len(fit(detector, images, views=AUTO).model.memory_bank.patches)
    assert rows in ({images * 196, images * 8 * 196} if tries else {images * 196})


def test_auto_takes_views_unless_normal_scores_spread_more(
    detector: PatchCoreDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, with_all = fit(detector, 3), fit(detector, 3, views=ALL)
    for spreads_more, expected in ((False, with_all), (True, without)):
        monkeypatch.setattr("patchserve_server.engine.detector.spreads_no_more", lambda *_, say=spreads_more: not say)
        chosen = fit(detector, 3, views=AUTO)
        assert chosen.model.options.views is AUTO
        np.testing.assert_array_equal(chosen.model.memory_bank.patches, expected.model.memory_bank.patches)
        assert chosen.model.calibration == expected.model.calibration
        assert chosen.model.views_per_image == expected.model.views_per_image == (1 if spreads_more else 8)


@pytest.mark.parametrize("profile", ScoringProfile)
def test_a_model_says_how_many_views_its_bank_was_made_of(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    model = fit(detector, 3, profile=profile, views=ALL, scales=2).model
    assert model.views_per_image == 9
    opened = detector.open(model)
    assert opened.model.views_per_image == 9
    assert detector.extend(opened, cards(7), ignore_progress).model.views_per_image == 9


def calibration(mean: float, stddev: float, count: int = 50) -> Calibration:
    spread = ScoreSpread(count, mean - stddev, mean, stddev, mean + stddev)
    return Calibration(CalibrationMethod.LEAVE_ONE_OUT, 1.0, 1.0, spread)


@pytest.mark.parametrize(
    ("stddev", "count", "holds"), [(0.1, 50, True), (0.119, 50, True), (0.121, 50, False), (0.14, 8, True)]
)
def test_a_spread_within_two_standard_errors_is_no_larger(stddev: float, count: int, holds: bool) -> None:
    assert spreads_no_more(calibration(2.0, 2 * stddev, count), calibration(1.0, 0.1, count)) is holds


def test_an_image_can_be_added_to_a_reference_with_views(detector: PatchCoreDetector) -> None:
    whole = fit(detector, 3, views=ALL, coreset=CoresetOptions(max_patches=2 * 196))
    base = fit(detector, 2, views=ALL, coreset=CoresetOptions(max_patches=2 * 196))
    extended = detector.extend(base, cards(3), ignore_progress)
    np.testing.assert_array_equal(extended.model.memory_bank.patches, whole.model.memory_bank.patches)
    assert extended.model.calibration == whole.model.calibration


@pytest.mark.parametrize("name", ["views", "scales"])
@pytest.mark.parametrize("other", ["search_radius", "tile_px"])
def test_views_exclude_places_and_tiles(name: str, other: str) -> None:
    views = {"views": ALL, "scales": 2}
    excluded = {"search_radius": 0.1} if other == "search_radius" else {"input": InputOptions(tile_px=448)}
    with pytest.raises(InvalidInputError, match=f"{name} cannot be combined with {other}"):
        ReferenceOptions(**{name: views[name]}, **excluded)  # type: ignore[arg-type]
    assert dataclasses.replace(ReferenceOptions(**excluded), views=AUTO).views is AUTO


@pytest.mark.parametrize(("profile", "views"), [("VERDICT", AUTO), ("NOTEBOOK", NONE), ("PAPER", NONE)])
def test_a_profile_has_its_own_default(profile: str, views: ReferenceViews) -> None:
    assert RequestedOptions(profile=ScoringProfile[profile]).with_defaults().views is views
    assert RequestedOptions(profile=ScoringProfile[profile], views=ALL).with_defaults().views is ALL


@pytest.mark.parametrize("scales", [0, 4])
def test_scales_are_1_to_3(scales: int) -> None:
    with pytest.raises(InvalidInputError, match=f"scales is 1 to 3, not {scales}"):
        ReferenceOptions(scales=scales)
