"""The detector over the embedded network: banks, verdicts, and what must not change them."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.images import card
from fakes.references import model_content
from PIL import Image

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import BankMismatchError, InvalidInputError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import Detection
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Detector
from patchserve_server.domain.reference import (
    CalibrationMethod,
    CoresetOptions,
    EmbeddingSpec,
    ReferenceModel,
    ReferenceOptions,
    ScoringProfile,
)
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector

FULL = CoresetOptions()
TENTH = CoresetOptions(ratio=0.1)
TOLERANCE = 1e-4  # of distances between vectors of length 1 and more


@pytest.fixture(scope="module")
def detector() -> PatchCoreDetector:
    return create_detector(backbone="efficientnet_lite2", device="cpu", threads=1)


def scaled(images: Sequence[Image.Image]) -> ModelInputs:
    return np.stack([np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)) for image in images])


def cards(*seeds: int, scratched: bool = False) -> ModelInputs:
    return scaled([card(seed, scratched=scratched) for seed in seeds])


def silent(_stage: LoadStage, _done: int, _total: int) -> None:
    pass


def fit(
    detector: Detector,
    inputs: ModelInputs,
    profile: ScoringProfile = ScoringProfile.NOTEBOOK,
    coreset: CoresetOptions = FULL,
) -> ReferenceModel:
    return detector.fit(inputs, ReferenceOptions(profile, coreset), silent)


def detect(detector: Detector, model: ReferenceModel, inputs: ModelInputs) -> Sequence[Detection]:
    return detector.detect(model, inputs)[0]


def assert_same(one: Detection, other: Detection) -> None:
    np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, rtol=0, atol=TOLERANCE)
    assert one.anomaly.raw_score == pytest.approx(other.anomaly.raw_score, abs=TOLERANCE)
    assert one.anomaly.is_anomalous == other.anomaly.is_anomalous


def test_a_bank_holds_every_patch_and_says_whose_it_is(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3)
    model = fit(detector, inputs)
    info = detector.info
    assert model.bank.patches.shape == (3 * 196, info.feature_dim)
    assert model.bank.patches.dtype == np.float32
    assert model.bank.image_index.dtype == np.int32
    np.testing.assert_array_equal(model.bank.image_index, np.repeat([0, 1, 2], 196))
    np.testing.assert_array_equal(model.bank.inputs, inputs)
    np.testing.assert_array_equal(model.bank.grid_index, np.tile(np.arange(196), 3))
    assert model.bank.spacing.mean() == pytest.approx(1, abs=1e-4)
    assert model.spec == detector.spec
    assert (model.spec.backbone, model.spec.weights_digest) == (info.backbone, info.weights_digest)
    assert model.spec.precision == info.precision == "fp32"


def test_a_coreset_keeps_rows_of_the_full_bank(detector: PatchCoreDetector) -> None:
    inputs = cards(1, 2, 3)
    full = fit(detector, inputs).bank
    kept = fit(detector, inputs, coreset=TENTH).bank
    assert len(kept.patches) == round(0.1 * len(full.patches))
    origins = kept.image_index * 196 + kept.grid_index
    np.testing.assert_array_equal(kept.patches, full.patches[origins])
    np.testing.assert_array_equal(origins, np.unique(origins))
    # Spacing is taken before the choice, so a kept row's is as in the full bank, but for the mean that it is set over.
    spacing = full.spacing[origins]
    np.testing.assert_allclose(kept.spacing, spacing / spacing.mean(), rtol=1e-4)


@pytest.mark.parametrize("coreset", [CoresetOptions(ratio=1.5), CoresetOptions(max_patches=3)])
def test_a_bad_option_fails_before_the_work_begins(detector: PatchCoreDetector, coreset: CoresetOptions) -> None:
    stages: list[LoadStage] = []
    options = ReferenceOptions(ScoringProfile.PAPER, coreset)
    with pytest.raises(InvalidInputError):
        detector.fit(cards(1), options, lambda stage, _done, _total: stages.append(stage))
    assert stages == []


@pytest.mark.parametrize("profile", ScoringProfile)
@pytest.mark.parametrize("coreset", [FULL, TENTH, CoresetOptions(max_patches=500)])
def test_extending_equals_fitting_all_bit_for_bit(
    detector: PatchCoreDetector, profile: ScoringProfile, coreset: CoresetOptions
) -> None:
    together = fit(detector, cards(1, 2, 3, 4), profile, coreset)
    grown = fit(detector, cards(1), profile, coreset)
    for more in (cards(2, 3), cards(4)):
        grown = detector.extend(grown, more, silent)
    assert model_content(grown) == model_content(together)
    assert revision_of(grown) == revision_of(together)


def test_extending_leaves_the_old_model_as_it_was(detector: PatchCoreDetector) -> None:
    model = fit(detector, cards(1, 2))
    before = model_content(model)
    detector.extend(model, cards(3), silent)
    assert model_content(model) == before


@pytest.mark.parametrize("profile", ScoringProfile)
@pytest.mark.parametrize("coreset", [FULL, TENTH])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_verdicts(detector: PatchCoreDetector, profile: ScoringProfile, coreset: CoresetOptions, count: int) -> None:
    inputs = cards(*range(count))
    model = fit(detector, inputs, profile, coreset)
    pristine = detect(detector, model, inputs)
    damaged = detect(detector, model, cards(10, 11, scratched=True))
    assert not any(found.anomaly.is_anomalous for found in pristine)
    assert all(found.anomaly.is_anomalous for found in damaged)
    for found in (*pristine, *damaged):
        assert found.anomaly_map.shape == (224, 224)
        assert found.anomaly_map.dtype == np.float32
        assert found.anomaly.raw_threshold == np.float32(model.calibration.image_threshold)
    for found in damaged:
        top, left = np.unravel_index(found.anomaly_map.argmax(), found.anomaly_map.shape)
        assert 60 < top < 180  # the scratch
        assert 70 < left < 180
        assert found.anomaly.anomalous_area_percentage > 0


@pytest.mark.parametrize("profile", ScoringProfile)
def test_batch_order_and_neighbors_do_not_matter(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    inputs = np.concatenate([cards(1, *range(20, 27)), cards(5, scratched=True)])  # more than one pass
    model = fit(detector, cards(1, 2, 3), profile)
    batch = detect(detector, model, inputs)
    backwards = detect(detector, model, inputs[::-1])[::-1]
    assert len(batch) == len(inputs)
    for at in (0, 7, 8):
        [single] = detect(detector, model, inputs[at : at + 1])
        assert_same(batch[at], single)
        assert_same(backwards[at], single)


def test_threads_do_not_disturb_each_other(detector: PatchCoreDetector) -> None:
    models = [fit(detector, cards(1, 2), profile) for profile in ScoringProfile]
    inputs = cards(7, scratched=True)
    expected = [detect(detector, model, inputs)[0] for model in models]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: detect(detector, models[at % 2], inputs)[0], range(12)))
    for at, one in enumerate(found):
        assert_same(one, expected[at % 2])


def test_arrays_that_cannot_be_written_are_taken(detector: PatchCoreDetector, recwarn: pytest.WarningsRecorder) -> None:
    inputs = cards(1, 2, 3)
    inputs.flags.writeable = False
    model = fit(detector, inputs)
    detect(detector, model, inputs)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_times_are_told(detector: PatchCoreDetector) -> None:
    _, times = detector.detect(fit(detector, cards(1)), cards(2, 3))
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
    model = fit(detector, cards(1))
    other = dataclasses.replace(model, spec=EmbeddingSpec(**{**dataclasses.asdict(model.spec), **change}))
    with pytest.raises(BankMismatchError, match=said):
        detect(detector, other, cards(1))
    with pytest.raises(BankMismatchError, match=said):
        detector.extend(other, cards(2), silent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"patches": np.zeros((196, 9), np.float32)},
            "patches 196 x 9 of 224 px, but this server runs patches 196 x 328",
        ),
        ({"grid_index": np.full(196, 196, np.int32)}, "patches 197 x 328 of 224 px"),
        ({"inputs": np.zeros((1, 32, 32, 3), np.uint8)}, "patches 196 x 328 of 32 px"),
    ],
)
def test_a_bank_of_another_shape_is_refused(
    detector: PatchCoreDetector, change: dict[str, np.ndarray], said: str
) -> None:
    model = fit(detector, cards(1))
    other = dataclasses.replace(model, bank=dataclasses.replace(model.bank, **change))
    with pytest.raises(BankMismatchError, match=said):
        detect(detector, other, cards(1))
    with pytest.raises(BankMismatchError, match=said):
        detector.extend(other, cards(2), silent)


def test_a_prepared_bank_goes_with_its_model(detector: PatchCoreDetector) -> None:
    gc.collect()
    before = len(detector._prepared)
    model = fit(detector, cards(1))
    detect(detector, model, cards(2))
    prepared = detector._prepared[model]
    detect(detector, model, cards(3))
    assert detector._prepared[model] is prepared
    del model
    gc.collect()
    assert len(detector._prepared) == before


def test_progress_is_told_stage_by_stage(detector: PatchCoreDetector) -> None:
    told: list[tuple[LoadStage, int, int]] = []
    detector.fit(cards(1, 2, 3), ReferenceOptions(ScoringProfile.PAPER, TENTH), lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == [LoadStage.EMBED, LoadStage.CORESET, LoadStage.CALIBRATE]
    for stage in stages:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert fit(detector, cards(1, 2, 3)).calibration.method is CalibrationMethod.LEAVE_ONE_OUT
