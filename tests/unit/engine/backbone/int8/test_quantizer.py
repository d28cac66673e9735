"""int8 with NNCF: equal networks for equal images, with features near to those of fp32."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.engine import inspect
from fakes.images import card
from fakes.references import named
from fakes.telemetry import assert_no_telemetry
from numpy.typing import NDArray
from PIL import Image

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import BankMismatchError, StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.int8 import quantizer
from patchserve_server.engine.backbone.int8.per_reference_backbone import PerReferenceBackbone
from patchserve_server.engine.backbone.int8.quantizer import Quantizer
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector
from patchserve_server.engine.map_difference import map_difference
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer

IMAGES: NDArray[np.uint8] = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(4)])
SCRATCHED: NDArray[np.uint8] = np.asarray(card(9, scratched=True).resize((224, 224)))[None]


@pytest.fixture(autouse=True)
def fewer_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster, and good enough for these tests."""
    monkeypatch.setattr(quantizer, "_VIEWS", 4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


def int8_detector(cache: Path | None = None) -> PatchCoreDetector:
    return create_detector(backbone="efficientnet_lite2", device="cpu", precision="int8", cache=cache, threads=2)


@pytest.fixture(scope="module")
def detector(cache: Path) -> PatchCoreDetector:
    return int8_detector(cache)


def silent(_stage: LoadStage, _done: int, _total: int) -> None:
    pass


def fit(detector: PatchCoreDetector, images: ModelInputs = IMAGES, **options: Any) -> Scorer:
    return detector.fit(images, ReferenceOptions(**options), silent)


def backbone_of(detector: PatchCoreDetector) -> PerReferenceBackbone:
    assert isinstance(detector._backbone, PerReferenceBackbone)
    return detector._backbone


def fail(*_: object) -> None:
    raise AssertionError("called")


def assert_scores_alike(one: Scorer, other: Scorer) -> None:
    (first,), (second,) = (inspect(scorer, SCRATCHED) for scorer in (one, other))
    assert first.anomaly == second.anomaly
    np.testing.assert_array_equal(first.anomaly_map, second.anomaly_map)


@pytest.mark.parametrize(("name", "min_int8_share"), [("efficientnet_lite2", 0.55), ("wide_resnet50_2", 0.95)])
def test_layers_are_near_those_of_fp32_and_most_weights_are_integers(
    backbones: Mapping[str, SharedBackbone[TorchRuntime]], tmp_path: Path, name: str, min_int8_share: float
) -> None:
    in_torch = backbones[name]
    exact, fast = (
        with_precision(in_torch, precision, map_difference=map_difference, cache=tmp_path).runtime_for(
            SCRATCHED, silent
        )
        for precision in ("fp32", "int8")
    )
    assert fast.precision == "int8"
    for ours, theirs in zip(fast.layers(SCRATCHED), exact.layers(SCRATCHED), strict=True):
        assert 0 < float((ours - theirs).norm() / theirs.norm()) < 0.15
    (file,) = tmp_path.iterdir()
    count = sum(parameter.numel() for parameter in in_torch.runtime.module.parameters())
    assert count < file.stat().st_size < (4 - 3 * min_int8_share) * count


def test_equal_images_give_equal_networks(detector: PatchCoreDetector) -> None:
    """Without a cache too, so that a bank stays usable after its network is lost."""
    scorer, again = fit(detector, IMAGES[:1]), fit(int8_detector(), IMAGES[:1])
    assert revision_of(scorer.model) == revision_of(again.model)
    assert_scores_alike(scorer, again)


def test_appending_gives_the_same_as_loading_all_at_once(detector: PatchCoreDetector) -> None:
    options = {"coreset": CoresetOptions(ratio=0.2), "region_of_interest": (((0, 0), (1, 0), (0, 1)),)}
    for one in (dict[str, Any](), options):
        at_once = fit(detector, IMAGES[:3], **one)
        appended = detector.extend(fit(detector, IMAGES[:1], **one), IMAGES[1:3], silent)
        assert revision_of(appended.model) == revision_of(at_once.model)
        assert_scores_alike(appended, at_once)


def test_a_load_reports_its_progress(detector: PatchCoreDetector) -> None:
    reported: list[tuple[LoadStage, int, int]] = []
    detector.fit(IMAGES[2:], ReferenceOptions(), lambda *step: reported.append(step))
    assert [step[1:] for step in reported if step[0] is LoadStage.QUANTIZE][:5] == [(done, 4) for done in range(5)]
    assert list(dict.fromkeys(stage for stage, _, _ in reported)) == [
        LoadStage.QUANTIZE,
        LoadStage.EMBED,
        LoadStage.CALIBRATE,
    ]


def test_a_restarted_server_uses_the_cached_network(
    detector: PatchCoreDetector, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = fit(detector)
    (before,), (pristine,) = inspect(scorer, SCRATCHED), inspect(scorer, IMAGES[:1])
    assert before.anomaly.is_anomalous
    assert not pristine.anomaly.is_anomalous
    monkeypatch.setattr(Quantizer, "quantize", fail)
    opened = int8_detector(cache).open(scorer.model)
    monkeypatch.setattr(PerReferenceBackbone, "runtime_for", fail)
    (after,) = inspect(opened, SCRATCHED)
    assert after.anomaly == before.anomaly
    np.testing.assert_array_equal(after.anomaly_map, before.anomaly_map)


def test_references_of_equal_images_share_a_network(detector: PatchCoreDetector) -> None:
    images = IMAGES[1:2]
    one, other = fit(detector, images), fit(detector, images, coreset=CoresetOptions(ratio=0.5))
    assert isinstance(one, PatchCoreScorer)
    assert isinstance(other, PatchCoreScorer)
    assert one.pipeline.runtime is other.pipeline.runtime


def test_a_load_that_ends_early_keeps_nothing(tmp_path: Path) -> None:
    def leave(_stage: LoadStage, done: int, _total: int) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        int8_detector(tmp_path).fit(IMAGES, ReferenceOptions(), leave)
    assert not list(tmp_path.iterdir())


def test_a_damaged_network_is_quantized_again(detector: PatchCoreDetector, cache: Path) -> None:
    scorer = fit(detector, IMAGES[:1])
    path = cache / f"{backbone_of(detector)._key(IMAGES[:1])}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    again = fit(int8_detector(cache), IMAGES[:1])
    assert revision_of(again.model) == revision_of(scorer.model)
    assert_scores_alike(again, scorer)


def test_nncf_writes_nothing_to_the_standard_output(
    detector: PatchCoreDetector, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone_of(detector)._quantize(IMAGES, silent)
    assert not capfd.readouterr().out
    assert logging.getLoggerClass() is logging.Logger


def test_banks_of_int8_and_fp32_do_not_mix(detector: PatchCoreDetector) -> None:
    exact = create_detector(backbone="efficientnet_lite2", device="cpu")
    assert (detector.info.precision, detector.spec_of(InputShape.square()).precision) == ("int8", "int8")
    ours, theirs = fit(detector, IMAGES[:1]), fit(exact, IMAGES[:1])
    assert ours.nbytes == theirs.nbytes + backbone_of(detector).bytes_per_reference(InputShape.square())
    with pytest.raises(BankMismatchError, match="with precision int8, but this server runs precision fp32"):
        exact.open(ours.model)
    with pytest.raises(BankMismatchError, match="with precision fp32, but this server runs precision int8"):
        detector.open(theirs.model)


def test_a_larger_input_and_its_network_are_counted_before_and_after(detector: PatchCoreDetector) -> None:
    def enlarged(images: ModelInputs) -> ModelInputs:
        return np.stack([np.asarray(Image.fromarray(image).resize((320, 320))) for image in images])

    scorer = fit(detector, enlarged(IMAGES), input=InputOptions(longer_side_px=320))
    assert scorer.nbytes == detector.open_nbytes(named(scorer.model).info)
    own = backbone_of(detector).bytes_per_reference
    assert own(InputShape.square(320)) > own(InputShape.square())
    (intact,), (damaged,) = inspect(scorer, enlarged(IMAGES[:1])), inspect(scorer, enlarged(SCRATCHED))
    assert (intact.anomaly.is_anomalous, damaged.anomaly.is_anomalous) == (False, True)


def test_without_nncf_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(
        StartupError, match=r'use --precision fp32, or install it with `pip install "\.\[server,int8\]"`'
    ):
        int8_detector()
    assert create_detector(backbone="efficientnet_lite2", device="cpu").info.precision == "fp32"


def test_nncf_sends_no_telemetry(tmp_path: Path) -> None:
    code = (
        "from patchserve_server.engine.factory import create_detector; "
        "create_detector(backbone='efficientnet_lite2', device='cpu', precision='int8')"
    )
    assert_no_telemetry(code, tmp_path)
