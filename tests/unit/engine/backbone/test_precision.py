"""Which runtime a precision gives on which processor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fakes.images import card
from numpy.typing import NDArray
from torch import Tensor, nn

from patchserve_server.domain.errors import BankMismatchError, StartupError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone import precision
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import Backbone, SharedBackbone
from patchserve_server.engine.backbone.map_tolerance import TOLERANCE
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime, supports_bf16
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector
from patchserve_server.engine.map_difference import map_difference
from patchserve_server.engine.measurements import Measurements

Backbones = Mapping[str, SharedBackbone[TorchRuntime]]

CPU = torch.device("cpu")
IMAGES: NDArray[np.uint8] = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(3)])


def silent(_stage: object, _done: int, _total: int) -> None:
    pass


def measured(**times_ms: float) -> Measurements:
    """Measurements with these times, whatever this processor needs."""
    return Measurements(None, lambda functions: {name: times_ms[name] for name in functions})


BF16_IS_FASTER = measured(fp32=2.0, bf16=1.0)


def in_precision(
    backbone: SharedBackbone[TorchRuntime], asked: str, measurements: Measurements = BF16_IS_FASTER
) -> Backbone:
    return with_precision(backbone, asked, map_difference=map_difference, measurements=measurements)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@dataclass
class FakeBf16Runtime:
    """A runtime that claims bf16: the layers of torch after a change."""

    module: nn.Module
    change: Callable[[Tensor], Tensor]
    precision: str = "bf16"
    device: torch.device = CPU
    nbytes: int = 0
    streams: int = 1
    largest_pass: int = 8

    def layers(self, inputs: NDArray[np.uint8]) -> tuple[Tensor, ...]:
        return tuple(self.change(layer) for layer in TorchRuntime(self.module, CPU).layers(inputs))


def rounded(layer: Tensor) -> Tensor:
    return layer.bfloat16().float()


def broken(layer: Tensor) -> Tensor:
    return layer.roll(3, dims=3) * layer.roll(1, dims=1).sign()


def use_fake_bf16(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    """A processor with bf16, and an OpenVINO that computes it with this change."""
    compile_real = precision._compile

    def compile_fake(backbone: SharedBackbone[TorchRuntime], asked: str) -> SharedBackbone[Runtime]:
        if asked == "bf16":
            return SharedBackbone(backbone.identity, FakeBf16Runtime(backbone.runtime.module, change))
        return compile_real(backbone, asked)

    monkeypatch.setattr(precision, "supports_bf16", lambda: True)
    monkeypatch.setattr(precision, "_compile", compile_fake)


@pytest.mark.skipif(not supports_bf16(), reason="this processor does not support bfloat16")
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_in_bf16_stay_within_the_tolerance(backbones: Backbones, name: str) -> None:
    fast = in_precision(backbones[name], "bf16")
    assert fast.precision == "bf16"
    difference = map_difference(fast.spec, backbones[name].runtime, fast.runtime_for(IMAGES, silent))
    assert 0 < difference <= TOLERANCE


@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_bf16_is_used_where_maps_agree(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    use_fake_bf16(monkeypatch, rounded)
    for backbone in backbones.values():
        assert in_precision(backbone, asked).precision == "bf16"
    assert not warnings_in(caplog)


def test_auto_falls_back_to_fp32_with_a_warning_where_maps_differ(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_fake_bf16(monkeypatch, broken)
    for backbone in backbones.values():
        found = in_precision(backbone, "auto")
        assert found.precision == "fp32"
        assert isinstance(found.runtime_for(IMAGES, silent), OpenVinoRuntime)
    assert len(warnings_in(caplog)) == len(BACKBONES)
    assert all("Anomaly maps in bf16 differ by" in message for message in warnings_in(caplog))


@pytest.mark.parametrize("bf16_ms", [2.0, 3.0])
def test_auto_takes_no_bf16_that_is_not_faster(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, bf16_ms: float
) -> None:
    use_fake_bf16(monkeypatch, rounded)
    times = measured(fp32=2.0, bf16=bf16_ms)
    assert in_precision(backbones["efficientnet_lite2"], "auto", times).precision == "fp32"
    assert in_precision(backbones["efficientnet_lite2"], "bf16", times).precision == "bf16"


@pytest.mark.parametrize(("difference", "expected"), [(TOLERANCE, "bf16"), (1.01 * TOLERANCE, "fp32")])
def test_auto_accepts_differences_up_to_the_tolerance(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, difference: float, expected: str
) -> None:
    use_fake_bf16(monkeypatch, rounded)
    found = with_precision(
        backbones["efficientnet_lite2"],
        "auto",
        map_difference=lambda _spec, _exact, _other: difference,
        measurements=BF16_IS_FASTER,
    )
    assert found.precision == expected


def test_bf16_that_was_asked_for_is_not_compared(backbones: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise AssertionError("compared")

    use_fake_bf16(monkeypatch, broken)
    assert with_precision(backbones["efficientnet_lite2"], "bf16", map_difference=fail).precision == "bf16"


def test_without_bf16_auto_is_fp32_and_bf16_is_rejected(backbones: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "supports_bf16", lambda: False)
    backbone = backbones["efficientnet_lite2"]
    assert in_precision(backbone, "auto").precision == "fp32"
    with pytest.raises(StartupError, match=r"needs a processor with AVX-512 BF16 or AMX, .* Use --precision fp32 or"):
        in_precision(backbone, "bf16")


@pytest.mark.parametrize("name", [name for name, spec in BACKBONES.items() if spec.int8 is None])
def test_int8_is_refused_where_it_was_not_measured(backbones: Backbones, name: str) -> None:
    with pytest.raises(
        StartupError, match=f"int8 is for wide_resnet50_2 and efficientnet_lite2, not for {name}. Use --precision fp32"
    ):
        in_precision(backbones[name], "int8")


def test_an_unknown_precision_is_rejected_with_the_known_ones(backbones: Backbones) -> None:
    with pytest.raises(StartupError, match=r'Unknown precision "fp8"\. Use fp32, bf16, int8 or auto'):
        in_precision(backbones["efficientnet_lite2"], "fp8")


@pytest.mark.parametrize("asked", ["tf32", "fp16"])
def test_precisions_of_gpus_are_rejected_on_a_cpu(backbones: Backbones, asked: str) -> None:
    with pytest.raises(StartupError, match=f"Precision {asked} needs a GPU. Use --precision fp32 or --precision auto"):
        in_precision(backbones["efficientnet_lite2"], asked)


def test_banks_of_two_precisions_do_not_mix(monkeypatch: pytest.MonkeyPatch, backbones: Backbones) -> None:
    use_fake_bf16(monkeypatch, rounded)
    fast = create_detector(backbone="efficientnet_lite2", device="cpu", precision="bf16")
    exact = PatchCoreDetector(backbones["efficientnet_lite2"])
    assert fast.info.precision == fast.spec_of(InputShape.square()).precision == "bf16"
    scorer = fast.fit(IMAGES, ReferenceOptions(), silent)
    scorer.score(IMAGES)
    with pytest.raises(BankMismatchError, match="with precision bf16, but this server runs precision fp32"):
        exact.open(scorer.model)
