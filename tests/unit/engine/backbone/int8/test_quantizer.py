"""int8: a network of each reference's own, the same for the same images, near to fp32's."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.images import card
from fakes.networks import random_wide_resnet
from numpy.typing import NDArray
from patchserve_server.engine.backbone.network import open_network

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import BankMismatchError, StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.reference import CoresetOptions, ReferenceModel, ReferenceOptions
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.int8 import quantizer
from patchserve_server.engine.backbone.int8.quantizer import Quantizer
from patchserve_server.engine.backbone.int8.synthetic_defects import synthetic_defects
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.runtime import TorchRuntime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector

IMAGES: NDArray[np.uint8] = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(4)])
SCRATCHED: NDArray[np.uint8] = np.asarray(card(9, scratched=True).resize((224, 224)))[None]


@pytest.fixture(autouse=True)
def fewer_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time, and ranges that are as good as any for these tests."""
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


def fit(detector: PatchCoreDetector, images: ModelInputs = IMAGES, **options: object) -> ReferenceModel:
    return detector.fit(images, ReferenceOptions(**options), silent)  # type: ignore[arg-type]


def quantizer_of(detector: PatchCoreDetector) -> Quantizer:
    found = detector._network.quantizer
    assert found is not None
    return found


def nothing_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("quantized again")

    monkeypatch.setattr(Quantizer, "_quantized", refused)


def assert_scores_alike(detector: PatchCoreDetector, one: ReferenceModel, other: ReferenceModel) -> None:
    (first,), (second,) = (detector.detect(model, SCRATCHED)[0] for model in (one, other))
    assert first.anomaly == second.anomaly
    np.testing.assert_array_equal(first.anomaly_map, second.anomaly_map)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_views_are_of_all_images_and_the_same_each_time(count: int) -> None:
    before = IMAGES.copy()
    views = synthetic_defects(IMAGES, count)
    assert views.shape == (count, 224, 224, 3)
    np.testing.assert_array_equal(views, synthetic_defects(IMAGES, count))
    np.testing.assert_array_equal(IMAGES, before)
    assert not np.array_equal(views, synthetic_defects(IMAGES[::-1], count))
    for at in range(min(count, 2)):  # not yet turned
        share = (views[at] != IMAGES[at * len(IMAGES) // count if count < len(IMAGES) else at]).mean()
        assert 0.01 < share < 0.9


def test_views_of_small_images() -> None:
    assert synthetic_defects(np.full((1, 8, 8, 3), 100, np.uint8), 6).shape == (6, 8, 8, 3)


@pytest.mark.parametrize(("name", "least_share"), [("efficientnet_lite2", 0.55), ("wide_resnet50_2", 0.95)])
def test_layers_stay_near_those_of_fp32(tmp_path: Path, name: str, least_share: float) -> None:
    """And most of the weights are in fact integers."""
    weights = None
    if name == "wide_resnet50_2":
        weights = tmp_path / "weights.pth"
        torch.save(random_wide_resnet().state_dict(), weights)
    network = open_network(name, weights, torch.device("cpu"))
    exact = with_precision(network, "fp32").layers(SCRATCHED)
    fast = with_precision(network, "int8", tmp_path / "networks").for_reference(SCRATCHED, silent)
    assert fast.precision == "int8"
    for ours, theirs in zip(fast.layers(SCRATCHED), exact, strict=True):
        assert 0 < float((ours - theirs).norm() / theirs.norm()) < 0.15
    (file,) = (tmp_path / "networks").iterdir()
    count = sum(parameter.numel() for parameter in network.module.parameters())
    assert count < file.stat().st_size < (4 - 3 * least_share) * count


def test_every_backbone_says_what_stays_in_fp32() -> None:
    for name, part in {"efficientnet_lite2": "_conv_stem", "wide_resnet50_2": "conv1"}.items():
        spec = BACKBONES[name]
        assert re.search(spec.float_layers, f"__module.module.part.{part}/aten::_convolution/Convolution")
        assert spec.int8_bytes > 0


def test_the_same_images_give_the_same_network(detector: PatchCoreDetector) -> None:
    """Without a cache too, so that a bank can be used after its network was lost."""
    model, again = fit(detector, IMAGES[:1]), fit(int8_detector(), IMAGES[:1])
    assert revision_of(model) == revision_of(again)
    assert_scores_alike(detector, model, again)


def test_other_images_another_order_and_other_settings_are_other_networks(detector: PatchCoreDetector) -> None:
    ours = quantizer_of(detector)
    another = Quantizer(ours._model, identity="another", float_layers="conv1", threads=1, cache=None)
    keys = {
        ours._key(IMAGES),
        ours._key(IMAGES[::-1]),
        ours._key(IMAGES[:3]),
        ours._key(IMAGES.reshape(2, 448, 224, 3)),
        another._key(IMAGES),
    }
    assert len(keys) == 5
    assert ours._key(IMAGES.copy()) in keys


def test_appending_is_loading_all_at_once(detector: PatchCoreDetector) -> None:
    options = {"coreset": CoresetOptions(ratio=0.2), "region_of_interest": (((0, 0), (1, 0), (0, 1)),)}
    for one in ({}, options):
        at_once = fit(detector, IMAGES[:3], **one)
        appended = detector.extend(fit(detector, IMAGES[:1], **one), IMAGES[1:3], silent)
        assert revision_of(appended) == revision_of(at_once)
        assert_scores_alike(detector, appended, at_once)


def test_a_load_tells_how_far_it_is(detector: PatchCoreDetector) -> None:
    told: list[tuple[LoadStage, int, int]] = []
    detector.fit(IMAGES[2:], ReferenceOptions(), lambda *step: told.append(step))
    assert [step[1:] for step in told if step[0] is LoadStage.QUANTIZE][:5] == [(done, 4) for done in range(5)]
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        LoadStage.QUANTIZE,
        LoadStage.EMBED,
        LoadStage.CALIBRATE,
    ]


def test_a_restart_finds_the_network(detector: PatchCoreDetector, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit(detector)
    (before,) = detector.detect(model, SCRATCHED)[0]
    (pristine,) = detector.detect(model, IMAGES[:1])[0]
    assert before.anomaly.is_anomalous
    assert not pristine.anomaly.is_anomalous
    nothing_is_quantized(monkeypatch)
    restarted = int8_detector(cache)
    stored = dataclasses.replace(model)
    restarted.prepare(stored)
    monkeypatch.setattr(Quantizer, "for_reference", nothing_is_quantized)
    (after,) = restarted.detect(stored, SCRATCHED)[0]
    assert after.anomaly == before.anomaly
    np.testing.assert_array_equal(after.anomaly_map, before.anomaly_map)


def test_equal_images_share_a_network_that_goes_with_the_last(detector: PatchCoreDetector) -> None:
    images, in_use = IMAGES[1:2], quantizer_of(detector)._in_use
    key = quantizer_of(detector)._key(images)
    one, other = fit(detector, images), fit(detector, images, coreset=CoresetOptions(ratio=0.5))
    assert detector._prepared[one].pipeline.network.runtime is detector._prepared[other].pipeline.network.runtime
    del one
    gc.collect()
    assert key in in_use
    del other
    gc.collect()
    assert key not in in_use


def test_a_load_whose_caller_has_gone_ends_and_keeps_nothing(tmp_path: Path) -> None:
    def leave(_stage: LoadStage, done: int, _total: int) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        int8_detector(tmp_path).fit(IMAGES, ReferenceOptions(), leave)
    assert not list(tmp_path.iterdir())


def test_a_damaged_network_is_made_again(detector: PatchCoreDetector, cache: Path) -> None:
    model = fit(detector, IMAGES[:1])
    path = cache / f"{quantizer_of(detector)._key(IMAGES[:1])}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    again = fit(int8_detector(cache), IMAGES[:1])
    assert revision_of(again) == revision_of(model)
    assert_scores_alike(detector, again, model)


def test_nothing_is_said_on_the_standard_output(
    detector: PatchCoreDetector, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizer, "_RECIPE", 0)  # NNCF is at work in any case
    quantizer_of(detector)._quantized(synthetic_defects(IMAGES, 4), silent)
    assert not capfd.readouterr().out
    assert logging.getLoggerClass() is logging.Logger


def test_banks_of_int8_and_fp32_do_not_mix(detector: PatchCoreDetector) -> None:
    exact = create_detector(backbone="efficientnet_lite2", device="cpu")
    assert (detector.info.precision, detector.spec.precision) == ("int8", "int8")
    assert (detector.info.bytes_per_reference > 0, exact.info.bytes_per_reference) == (True, 0)
    model, other = fit(detector, IMAGES[:1]), fit(exact, IMAGES[:1])
    with pytest.raises(BankMismatchError, match="with precision int8, but this server runs precision fp32"):
        exact.prepare(model)
    with pytest.raises(BankMismatchError, match="with precision fp32, but this server runs precision int8"):
        detector.detect(other, SCRATCHED)


def test_without_nncf_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(StartupError, match=r"install patchserve\[int8\], or use --precision fp32"):
        int8_detector()
    assert isinstance(create_detector(backbone="efficientnet_lite2", device="cpu")._network.runtime, OpenVinoRuntime)


def test_on_cuda_there_is_no_int8() -> None:
    network = open_network("efficientnet_lite2", None, torch.device("cpu"))
    on_cuda = dataclasses.replace(network, runtime=TorchRuntime(network.module, torch.device("cuda", 0)))
    with pytest.raises(StartupError, match="int8 is for the CPU: use --device cpu, or --precision fp32"):
        with_precision(on_cuda, "int8")


def test_nncf_tells_nobody(tmp_path: Path) -> None:
    """In a process of its own, whose home folder would get the id that reports carry."""
    code = (
        "from patchserve_server.bootstrap.process import configure_process; configure_process(); "
        "from patchserve_server.engine import create_detector; import sys; "
        "create_detector(backbone='efficientnet_lite2', device='cpu', precision='int8'); "
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "['openvino_telemetry']"  # the placeholder, and nothing of the package
    assert not (tmp_path / "intel").exists()
