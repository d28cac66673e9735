"""The detector over the embedded network: banks, verdicts, and what must not change them."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.engine import MEMORY_BANK_PROFILES, Judged, cards, ignore_progress, inspect
from fakes.references import model_content

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Detector, Scorer
from patchserve_server.domain.reference import CalibrationMethod, EmbeddingSpec
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.engine.detector import PatchCoreDetector

FULL = CoresetOptions()
TENTH = CoresetOptions(ratio=0.1)
TOLERANCE = 1e-4  # of distances between vectors of length 1 and more


def fit(
    detector: Detector,
    inputs: ModelInputs,
    profile: ScoringProfile = ScoringProfile.NOTEBOOK,
    coreset: CoresetOptions = FULL,
) -> Scorer:
    return detector.fit(inputs, ReferenceOptions(profile, coreset), ignore_progress)


def assert_same(one: Judged, other: Judged) -> None:
    np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, rtol=0, atol=TOLERANCE)
    assert one.anomaly.raw_score == pytest.approx(other.anomaly.raw_score, abs=TOLERANCE)
    assert one.anomaly.is_anomalous == other.anomaly.is_anomalous


def test_a_bank_holds_every_patch_and_says_whose_it_is(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3)
    model = fit(detector, inputs).model
    info = detector.info
    assert model.memory_bank.patches.shape == (3 * 196, info.feature_dim)
    assert model.memory_bank.patches.dtype == np.float32
    assert model.memory_bank.image_index.dtype == np.int32
    np.testing.assert_array_equal(model.memory_bank.image_index, np.repeat([0, 1, 2], 196))
    np.testing.assert_array_equal(model.bank.inputs, inputs)
    np.testing.assert_array_equal(model.memory_bank.grid_index, np.tile(np.arange(196), 3))
    assert model.memory_bank.spacing.mean() == pytest.approx(1, abs=1e-4)
    assert model.spec == detector.spec_of(model.bank.input_shape)
    assert (model.spec.backbone, model.spec.weights_digest) == (info.backbone, info.weights_digest)
    assert model.spec.precision == info.precision == "fp32"


def test_a_coreset_keeps_rows_of_the_full_bank(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3)
    full = fit(detector, inputs).model.memory_bank
    kept = fit(detector, inputs, coreset=TENTH).model.memory_bank
    assert len(kept.patches) == round(0.1 * len(full.patches))
    origins = kept.image_index * 196 + kept.grid_index
    np.testing.assert_array_equal(kept.patches, full.patches[origins])
    np.testing.assert_array_equal(origins, np.unique(origins))
    # Spacing is taken before the choice, so a kept row's is as in the full bank, but for the mean that it is set over.
    spacing = full.spacing[origins]
    np.testing.assert_allclose(kept.spacing, spacing / spacing.mean(), rtol=1e-4)


@pytest.mark.parametrize("profile", MEMORY_BANK_PROFILES)
@pytest.mark.parametrize("coreset", [FULL, TENTH, CoresetOptions(max_patches=500)])
def test_extending_equals_fitting_all_bit_for_bit(
    detector: PatchCoreDetector, profile: ScoringProfile, coreset: CoresetOptions
) -> None:
    together = fit(detector, cards(1, 2, 3, 4), profile, coreset)
    grown = fit(detector, cards(1), profile, coreset)
    for more in (cards(2, 3), cards(4)):
        grown = detector.extend(grown, more, ignore_progress)
    assert model_content(grown.model) == model_content(together.model)
    assert revision_of(grown.model) == revision_of(together.model)


def test_extending_leaves_the_old_model_as_it_was(detector: PatchCoreDetector) -> None:
    base = fit(detector, cards(1, 2))
    before = model_content(base.model)
    detector.extend(base, cards(3), ignore_progress)
    assert model_content(base.model) == before


@pytest.mark.parametrize("profile", MEMORY_BANK_PROFILES)
@pytest.mark.parametrize("coreset", [FULL, TENTH])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_verdicts(detector: PatchCoreDetector, profile: ScoringProfile, coreset: CoresetOptions, count: int) -> None:
    inputs = cards(*range(count))
    scorer = fit(detector, inputs, profile, coreset)
    pristine = inspect(scorer, inputs)
    damaged = inspect(scorer, cards(10, 11, scratched=True))
    assert not any(found.anomaly.is_anomalous for found in pristine)
    assert all(found.anomaly.is_anomalous for found in damaged)
    for found in (*pristine, *damaged):
        assert found.anomaly_map.shape == (224, 224)
        assert found.anomaly_map.dtype == np.float32
        assert found.anomaly.raw_threshold == np.float32(scorer.model.calibration.image_threshold)
    for found in damaged:
        top, left = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
        assert 60 < top < 180  # the scratch
        assert 70 < left < 180
        assert found.anomaly.anomalous_area_percentage > 0


@pytest.mark.parametrize("profile", ScoringProfile)
def test_batch_order_and_neighbors_do_not_matter(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    inputs = np.concatenate([cards(1, *range(20, 27)), cards(5, scratched=True)])  # more than one pass
    model = fit(detector, cards(1, 2, 3), profile)
    batch = inspect(model, inputs)
    backwards = inspect(model, inputs[::-1])[::-1]
    assert len(batch) == len(inputs)
    for at in (0, 7, 8):
        [single] = inspect(model, inputs[at : at + 1])
        assert_same(batch[at], single)
        assert_same(backwards[at], single)


def test_threads_do_not_disturb_each_other(detector: PatchCoreDetector) -> None:
    models = [fit(detector, cards(1, 2), profile) for profile in ScoringProfile]
    inputs = cards(7, scratched=True)
    expected = [inspect(model, inputs)[0] for model in models]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: inspect(models[at % 2], inputs)[0], range(12)))
    for at, one in enumerate(found):
        assert_same(one, expected[at % 2])


def test_arrays_that_cannot_be_written_are_taken(detector: PatchCoreDetector, recwarn: pytest.WarningsRecorder) -> None:
    inputs = cards(1, 2, 3)
    inputs.flags.writeable = False
    model = fit(detector, inputs)
    inspect(model, inputs)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_times_are_told(detector: PatchCoreDetector) -> None:
    _, times = fit(detector, cards(1)).score(cards(2, 3))
    assert times.embed_ms > 0
    assert times.search_ms > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "wide_resnet50_2"}, "backbone wide_resnet50_2, but this server runs backbone efficientnet_lite2"),
        ({"weights_digest": "0" * 64}, "weights_digest 0{64}, but this server runs weights_digest [0-9a-f]{64}"),
        ({"precision": "bf16", "preprocessing": "none"}, "preprocessing none, precision bf16, but this server runs"),
    ],
)
def test_a_bank_of_another_detector_is_refused(detector: PatchCoreDetector, change: dict[str, str], said: str) -> None:
    model = fit(detector, cards(1)).model
    other = dataclasses.replace(model, spec=EmbeddingSpec(**{**dataclasses.asdict(model.spec), **change}))
    with pytest.raises(BankMismatchError, match=said):
        detector.open(other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"patches": np.zeros((196, 9), np.float32)},
            "patches 196 x 9, but this server runs patches 196 x 328",
        ),
        ({"grid_index": np.full(196, 196, np.int32)}, "patches 197 x 328"),
        ({"inputs": np.zeros((1, 32, 32, 3), np.uint8)}, "but this server runs .*patches 4 x 328"),
        ({"inputs": np.zeros((1, 224, 225, 3), np.uint8)}, "input 225 x 224, but .*input multiples of 32 px"),
    ],
)
def test_a_bank_of_another_shape_is_refused(
    detector: PatchCoreDetector, change: dict[str, np.ndarray], said: str
) -> None:
    model = fit(detector, cards(1)).model
    other = dataclasses.replace(model, bank=dataclasses.replace(model.memory_bank, **change))
    with pytest.raises(BankMismatchError, match=said):
        detector.open(other)


def test_a_scorer_is_freed_with_its_last_user(detector: PatchCoreDetector) -> None:
    scorer = fit(detector, cards(1))
    inspect(scorer, cards(2))
    alive = weakref.ref(scorer.model.memory_bank.patches)
    del scorer
    gc.collect()
    assert alive() is None


def test_progress_is_told_stage_by_stage(detector: PatchCoreDetector) -> None:
    told: list[tuple[LoadStage, int, int]] = []
    detector.fit(cards(1, 2, 3), ReferenceOptions(ScoringProfile.PAPER, TENTH), lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == [LoadStage.EMBED, LoadStage.CORESET, LoadStage.CALIBRATE]
    for stage in stages:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert fit(detector, cards(1, 2, 3)).model.calibration.method is CalibrationMethod.LEAVE_ONE_OUT
