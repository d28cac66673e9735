"""What every Detector promises: the engine's, and the fake that stands in for it in the tests of `serving`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.detector import FakeDetector
from fakes.engine import ignore_progress
from fakes.images import card
from fakes.references import model_content, named
from PIL import Image

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Detector, Scorer
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile

LEFT_HALF = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)
OPTIONS = [
    ReferenceOptions(),
    ReferenceOptions(coreset=CoresetOptions(max_patches=100), search_radius=0.2, region_of_interest=LEFT_HALF),
    ReferenceOptions(approximate_search=True),
    ReferenceOptions(profile=ScoringProfile.SUBSPACE),
    ReferenceOptions(profile=ScoringProfile.SUBSPACE, region_of_interest=LEFT_HALF),
]

Inputs = Callable[..., ModelInputs]


@pytest.fixture(params=["engine", "fake"])
def tested(request: pytest.FixtureRequest) -> Detector:
    detector: Detector = FakeDetector() if request.param == "fake" else request.getfixturevalue("detector")
    return detector


@pytest.fixture
def cards(tested: Detector) -> Inputs:
    """Drawn cards (N, S, S, 3) of the detector's input size."""
    size_px = (tested.info.input_size_px,) * 2

    def draw(*seeds: int, scratched: bool = False) -> ModelInputs:
        images = [card(seed, scratched=scratched).resize(size_px, Image.Resampling.BILINEAR) for seed in seeds]
        return np.stack([np.asarray(image) for image in images])

    return draw


def assert_equal_scores(one: Scorer, other: Scorer, inputs: ModelInputs) -> None:
    for ours, theirs in zip(one.score(inputs)[0], other.score(inputs)[0], strict=True):
        assert ours.image_score == theirs.image_score
        np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)


def test_it_describes_itself(tested: Detector) -> None:
    info, spec = tested.info, tested.spec_of(InputShape.square())
    assert (info.backbone, info.weights_digest, info.precision) == (spec.backbone, spec.weights_digest, spec.precision)
    assert min(info.input_size_px, info.feature_dim) > 0


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fit_gives_an_open_reference(tested: Detector, cards: Inputs, options: ReferenceOptions) -> None:
    model = tested.fit(cards(1, 2, 3), options, ignore_progress).model
    assert (model.spec, model.options) == (tested.spec_of(model.bank.input_shape), options)
    assert len(model.bank.inputs) == 3
    assert model.bank.feature_dim == tested.info.feature_dim
    assert model.calibration.image_threshold > 0


def test_equal_images_and_options_give_equal_models(tested: Detector, cards: Inputs) -> None:
    one, other = (tested.fit(cards(1, 2), ReferenceOptions(), ignore_progress).model for _ in range(2))
    assert model_content(one) == model_content(other)
    assert revision_of(one) == revision_of(other)


@pytest.mark.parametrize("options", OPTIONS)
def test_an_opened_model_scores_as_the_fitted_one(tested: Detector, cards: Inputs, options: ReferenceOptions) -> None:
    fitted = tested.fit(cards(1, 2, 3), options, ignore_progress)
    opened = tested.open(dataclasses.replace(fitted.model))
    assert_equal_scores(fitted, opened, np.concatenate([cards(4), cards(5, scratched=True)]))


@pytest.mark.parametrize("options", OPTIONS)
def test_extending_equals_fitting_all(tested: Detector, cards: Inputs, options: ReferenceOptions) -> None:
    together = tested.fit(cards(1, 2, 3), options, ignore_progress)
    base = tested.fit(cards(1), options, ignore_progress)
    before = model_content(base.model)
    for opened in (base, tested.open(base.model)):
        extended = tested.extend(opened, cards(2, 3), ignore_progress)
        assert model_content(extended.model) == model_content(together.model)
        assert_equal_scores(extended, together, cards(4))
    assert model_content(base.model) == before


@pytest.mark.parametrize("options", OPTIONS)
def test_the_memory_of_a_scorer_is_known_before_it_is_opened(
    tested: Detector, cards: Inputs, options: ReferenceOptions
) -> None:
    fitted = tested.fit(cards(1, 2, 3), options, ignore_progress)
    expected = tested.open_nbytes(named(fitted.model).info)
    assert expected >= fitted.model.bank.nbytes
    assert fitted.nbytes == tested.open(fitted.model).nbytes == expected


def test_no_score_depends_on_the_other_images(tested: Detector, cards: Inputs) -> None:
    scorer = tested.fit(cards(1, 2), ReferenceOptions(), ignore_progress)
    inputs = np.concatenate([cards(*range(3, 11)), cards(11, scratched=True)])
    together, times = scorer.score(inputs)
    assert min(times.embed_ms, times.search_ms) > 0
    for number, scores in enumerate(together):
        (alone,), _ = scorer.score(inputs[number : number + 1])
        np.testing.assert_allclose(alone.anomaly_map, scores.anomaly_map, rtol=0, atol=1e-4)
        assert alone.image_score == pytest.approx(scores.image_score, abs=1e-4)
        assert scores.anomaly_map.shape == (tested.info.input_size_px,) * 2
        assert scores.anomaly_map.dtype == np.float32


def test_a_batch_of_several_references_gives_the_scores_of_each_alone(tested: Detector, cards: Inputs) -> None:
    scorers = [
        tested.fit(cards(*range(1, 2 + number)), options, ignore_progress) for number, options in enumerate(OPTIONS)
    ]
    assert len({scorer.batch_key for scorer in scorers}) == 1
    batch = [(scorer, cards(*range(20, 21 + number))) for number, scorer in enumerate(scorers)]
    scored = {part.number: part for part in tested.score_batch(batch)}
    assert scored.keys() == set(range(len(batch)))
    for number, (scorer, inputs) in enumerate(batch):
        together, alone = scored[number].scores, scorer.score(inputs)[0]
        assert not isinstance(together, Exception)
        assert [scores.image_score for scores in together] == [scores.image_score for scores in alone]
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours.anomaly_map, theirs.anomaly_map)
        assert min(scored[number].times.embed_ms, scored[number].times.search_ms) > 0


def test_inputs_of_another_shape_cost_no_other_part_its_scores(tested: Detector, cards: Inputs) -> None:
    scorers = [tested.fit(cards(seed), ReferenceOptions(), ignore_progress) for seed in (1, 2, 3)]
    batch = [(scorers[0], cards(4)), (scorers[1], cards(4)[:, :4]), (scorers[2], cards(4))]
    outcomes = {part.number: part.scores for part in tested.score_batch(batch)}
    assert isinstance(outcomes[1], ValueError)
    for number in (0, 2):
        (expected,), outcome = scorers[number].score(cards(4))[0], outcomes[number]
        assert not isinstance(outcome, Exception)
        assert outcome[0].image_score == expected.image_score


def test_damage_scores_higher(tested: Detector, cards: Inputs) -> None:
    scorer = tested.fit(cards(1, 2, 3), ReferenceOptions(), ignore_progress)
    (intact,), (damaged,) = scorer.score(cards(4))[0], scorer.score(cards(4, scratched=True))[0]
    assert damaged.image_score > intact.image_score


def test_only_its_own_banks_are_opened(tested: Detector, cards: Inputs) -> None:
    model = tested.fit(cards(1), ReferenceOptions(), ignore_progress).model
    foreign = dataclasses.replace(model, spec=dataclasses.replace(model.spec, weights_digest="f" * 64))
    with pytest.raises(BankMismatchError):
        tested.open(foreign)


def test_threads_do_not_disturb_each_other(tested: Detector, cards: Inputs) -> None:
    scorers = [tested.fit(cards(*seeds), ReferenceOptions(), ignore_progress) for seeds in ((1, 2), (3, 4, 5))]
    expected = [scorer.score(cards(9))[0][0].image_score for scorer in scorers]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda turn: scorers[turn % 2].score(cards(9))[0][0].image_score, range(8)))
    assert found == pytest.approx(expected * 4, abs=1e-4)


def test_progress_ends_where_it_should_and_an_error_in_it_ends_the_fit(tested: Detector, cards: Inputs) -> None:
    steps: list[tuple[LoadStage, int, int]] = []
    tested.fit(cards(1, 2), ReferenceOptions(), lambda *step: steps.append(step))
    assert (LoadStage.EMBED, 2, 2) in steps

    def leave(_stage: LoadStage, _done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        tested.fit(cards(1, 2), ReferenceOptions(), leave)
