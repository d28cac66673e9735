"""The backbone of a GPU: passes of fixed sizes, captured once, in several number formats."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from fakes.devices import SIZES, fake_device
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine import factory
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.device_precision import on_device
from patchserve_server.engine.backbone.device_runtime import PASS_SIZES
from patchserve_server.engine.backbone.map_tolerance import TOLERANCE
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.backbone.transfers import DeviceTransfers
from patchserve_server.engine.map_difference import map_difference
from patchserve_server.engine.measurements import Measurements

Backbones = Mapping[str, SharedBackbone[TorchRuntime]]
CPU = torch.device("cpu")
SMALL = InputShape(64, 96)


def images(count: int, shape: InputShape = SMALL, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape.sides_px, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 11])
def test_any_number_of_images_has_the_layers_of_torch(backbones: Backbones, count: int) -> None:
    backbone = backbones["efficientnet_lite2"]
    runtime = fake_device(backbone).runtime
    runtime.layers(images(4, seed=7))  # what is left in the buffers changes nothing
    for ours, theirs in zip(runtime.layers(images(count)), backbone.runtime.layers(images(count)), strict=True):
        assert ours.dtype is torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_layers_stay_when_the_next_pass_runs(backbones: Backbones) -> None:
    runtime = fake_device(backbones["efficientnet_lite2"]).runtime
    first = runtime.layers(images(2))
    kept = [layer.clone() for layer in first]
    runtime.layers(images(2, seed=1))
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))


def test_after_the_warm_up_no_number_of_images_is_new(backbones: Backbones) -> None:
    device = fake_device(backbones["efficientnet_lite2"])
    device.runtime.warm_up(SMALL, SIZES[-1])
    captured = device.graphs.captured
    assert captured == len(SIZES)
    for count in range(1, 10):
        device.runtime.layers(images(count))
    assert device.graphs.captured == captured


def test_before_a_server_is_ready_all_passes_of_the_usual_size_are_captured(backbones: Backbones) -> None:
    device = fake_device(backbones["efficientnet_lite2"])
    device.detector.warm_up()
    assert device.graphs.captured == len(SIZES)
    device.runtime.warm_up(InputShape.square(), SIZES[-1])
    assert device.graphs.captured == len(SIZES)


def test_a_device_that_is_too_full_for_a_server_is_told_in_a_sentence(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = fake_device(backbones["efficientnet_lite2"])

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(device.runtime, "warm_up", fail)
    with pytest.raises(StartupError, match="The device has too little free memory"):
        device.detector.warm_up()
    monkeypatch.setattr(factory, "load_backbone", fail)
    with pytest.raises(StartupError, match="The device has too little free memory"):
        factory.create_detector(backbone="efficientnet_lite2", device="cpu")


def test_a_warm_up_for_few_images_captures_no_large_passes(backbones: Backbones) -> None:
    device = fake_device(backbones["efficientnet_lite2"])
    device.runtime.warm_up(SMALL, 1)
    assert device.graphs.captured == 1
    assert device.runtime.sizes_up_to(3) == [1, 2, 4]


def test_passes_double_up_to_the_largest() -> None:
    assert PASS_SIZES == (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("name", ["efficientnet_lite2", "wide_resnet50_2"])
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_maps_of_other_number_formats_are_within_the_tolerance(backbones: Backbones, name: str, precision: str) -> None:
    backbone = backbones[name]
    runtime = fake_device(backbone, precision).runtime
    assert runtime.precision == precision
    assert map_difference(backbone.spec, backbone.runtime, runtime) <= TOLERANCE


def test_tf32_is_only_for_the_network(backbones: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    device = fake_device(backbones["efficientnet_lite2"], "tf32")
    seen = list[bool]()
    device.runtime.module.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    device.runtime.warm_up(SMALL, 1)
    assert seen == [True]
    assert not torch.backends.cudnn.allow_tf32


def fixed(**times_ms: float) -> Measurements:
    class Fixed(Measurements):
        def times_ms(self, name: str, runs: Mapping[str, object]) -> Mapping[str, float]:
            assert "cpu" in name
            return {each: times_ms[each] for each in runs}

    return Fixed(None)


FASTEST_FIRST = {"bf16": 1.0, "fp16": 1.2, "tf32": 2.0, "fp32": 8.0}


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"bf16": TOLERANCE}, "bf16"),
        ({"bf16": 1.01 * TOLERANCE}, "fp16"),
        ({"bf16": float("nan"), "fp16": float("inf")}, "tf32"),
        ({"bf16": 1.0, "fp16": 1.0, "tf32": 1.0}, "fp32"),
    ],
)
def test_auto_is_the_fastest_whose_maps_hardly_differ(
    backbones: Backbones, caplog: pytest.LogCaptureFixture, differences: Mapping[str, float], expected: str
) -> None:
    with caplog.at_level(logging.INFO):
        chosen = on_device(
            backbones["efficientnet_lite2"],
            "auto",
            map_difference=lambda _spec, _exact, other: differences.get(other.precision, 0.0),
            measurements=fixed(**FASTEST_FIRST),
        )
    assert chosen.precision == expected
    assert f"using {expected}" in caplog.text or expected == "fp32"


@pytest.mark.parametrize(
    ("times_ms", "expected"),
    [
        ({"fp16": 1.0, "bf16": 1.0, "tf32": 2.0, "fp32": 8.0}, "fp16"),
        ({"fp16": 1.09, "bf16": 1.0, "tf32": 2.0, "fp32": 8.0}, "fp16"),
        ({"fp16": 1.0, "bf16": 1.09, "tf32": 2.0, "fp32": 8.0}, "fp16"),
        ({"fp16": 1.15, "bf16": 1.0, "tf32": 2.0, "fp32": 8.0}, "bf16"),
        ({"fp16": 3.0, "bf16": 3.0, "tf32": 1.0, "fp32": 1.05}, "fp32"),
    ],
)
def test_auto_does_not_depend_on_the_noise_of_a_measurement(
    backbones: Backbones, times_ms: dict[str, float], expected: str
) -> None:
    chosen = on_device(
        backbones["efficientnet_lite2"], "auto", map_difference=lambda *_: 0.0, measurements=fixed(**times_ms)
    )
    assert chosen.precision == expected


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("int8", "runs on the CPU only. Use --device cpu"),
        ("fp8", 'Unknown precision "fp8". Use fp32, tf32, fp16, bf16'),
    ],
)
def test_other_precisions_are_refused(backbones: Backbones, precision: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        on_device(backbones["efficientnet_lite2"], precision, map_difference=map_difference, measurements=fixed())


@settings(max_examples=50, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_transfers_change_nothing(shapes: list[list[int]], seed: int) -> None:
    transfers, rng = DeviceTransfers(CPU), np.random.default_rng(seed)
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8)[..., ::-1] for shape in shapes]
    moved = transfers.to_device(arrays)
    back = transfers.to_host([tensor.float() for tensor in moved])
    for array, tensor, returned in zip(arrays, moved, back, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
        np.testing.assert_array_equal(returned, array)
        assert returned.dtype == np.float32
