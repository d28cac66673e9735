"""OpenVINO computes the same as torch, whatever runs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.images import card
from fakes.telemetry import assert_no_telemetry
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime, convert_to_openvino, supports_bf16
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.map_difference import map_difference

Backbones = Mapping[str, SharedBackbone[TorchRuntime]]

IMAGES: NDArray[np.uint8] = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(3)])


@torch.inference_mode()
def layers_of(runtime: Runtime, images: NDArray[np.uint8] = IMAGES) -> tuple[Tensor, ...]:
    return runtime.layers(images)


def compiled(backbone: SharedBackbone[TorchRuntime], threads: int) -> OpenVinoRuntime:
    model = convert_to_openvino(backbone.runtime.module, backbone.spec.step_px)
    return OpenVinoRuntime(model, precision="fp32", threads=threads)


@pytest.fixture(scope="module")
def runtimes(backbones: Backbones) -> dict[str, OpenVinoRuntime]:
    """In fp32, by the backbone's name."""
    return {name: compiled(backbone, torch.get_num_threads()) for name, backbone in backbones.items()}


@pytest.fixture(scope="module")
def two_threads(backbones: Backbones) -> OpenVinoRuntime:
    return compiled(backbones["efficientnet_lite2"], 2)


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_and_maps_equal_those_of_torch(
    backbones: Backbones, runtimes: dict[str, OpenVinoRuntime], name: str
) -> None:
    runtime, backbone = runtimes[name], backbones[name]
    assert (runtime.device, runtime.precision, runtime.nbytes) == (torch.device("cpu"), "fp32", 0)
    for ours, theirs in zip(layers_of(runtime), layers_of(backbone.runtime), strict=True):
        assert theirs.std() > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    assert map_difference(backbone.spec, backbone.runtime, runtime) < 1e-5


@pytest.mark.parametrize("steps", [(10, 7), (9, 16), (20, 20)])
@pytest.mark.parametrize("name", BACKBONES)
def test_one_model_serves_every_shape(
    backbones: Backbones, runtimes: dict[str, OpenVinoRuntime], name: str, steps: tuple[int, int]
) -> None:
    backbone = backbones[name]
    shape = InputShape(*(count * backbone.spec.step_px for count in steps))
    images = np.stack([np.asarray(card(seed).resize(shape.size_px)) for seed in range(2)])
    ours, theirs = layers_of(runtimes[name], images), layers_of(backbone.runtime, images)
    assert tuple(ours[0].shape[2:]) == backbone.spec.grid_of(shape)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-5 * float(their.abs().max()))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_features_of_an_image_do_not_depend_on_its_batch(runtimes: dict[str, OpenVinoRuntime], name: str) -> None:
    runtime = runtimes[name]
    together, backwards = layers_of(runtime), layers_of(runtime, IMAGES[::-1])
    for at in range(len(IMAGES)):
        for alone, one, other in zip(layers_of(runtime, IMAGES[at : at + 1]), together, backwards, strict=True):
            assert torch.equal(alone[0], one[at])
            assert torch.equal(alone[0], other[len(IMAGES) - 1 - at])


@pytest.mark.parametrize("name", BACKBONES)
def test_threads_get_the_same_features_at_the_same_time(runtimes: dict[str, OpenVinoRuntime], name: str) -> None:
    expected = layers_of(runtimes[name])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: layers_of(runtimes[name]), range(6)):
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_no_setting_is_left_to_the_defaults_of_openvino(two_threads: OpenVinoRuntime) -> None:
    for model, streams in ((two_threads._latency_model, 1), (two_threads._throughput_model, 2)):
        assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert model.get_property("INFERENCE_NUM_THREADS") == 2
        assert model.get_property("NUM_STREAMS") == streams
        assert not model.get_property("ENABLE_CPU_PINNING")


def test_images_get_one_thread_each_only_if_that_keeps_all_threads_busy(two_threads: OpenVinoRuntime) -> None:
    latency, throughput = two_threads._latency_model, two_threads._throughput_model
    with two_threads._model_for(1) as first:
        with two_threads._model_for(1) as second:
            pass
        with two_threads._model_for(2) as pair:
            pass
    with two_threads._model_for(1) as later:
        pass
    assert [first, second, pair, later] == [latency, throughput, throughput, latency]


def test_both_models_compute_the_same(two_threads: OpenVinoRuntime) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
    many = layers_of(two_threads, images)
    for at in range(5):
        one = layers_of(two_threads, images[at : at + 1])
        assert all(torch.equal(layer[at], each[0]) for layer, each in zip(many, one, strict=True))


def test_bf16_needs_both_the_processor_and_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        reported = ("FP32", "BF16")

        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return list(self.reported)

    monkeypatch.setattr("openvino.Core", Core)
    for instructions, expected in (("amx_bf16", True), ("avx512_bf16", True), ("avx512_f", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=instructions: {name: True})
        assert supports_bf16() is expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(Core, "reported", ("FP32",))
    assert not supports_bf16()


def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    assert_no_telemetry("import patchserve_server.engine.factory", tmp_path)


def test_the_buffers_for_larger_images_are_counted_for_each_stream(
    backbones: Backbones, two_threads: OpenVinoRuntime
) -> None:
    in_torch = backbones["efficientnet_lite2"]
    shared = SharedBackbone(in_torch.identity, two_threads).shared_bytes
    assert shared(InputShape.square(192)) == shared(InputShape.square()) == 0
    assert shared(InputShape(448, 640)) == 240 * (448 * 640 - 224**2) * 3  # one model has one stream, the other two
    assert in_torch.shared_bytes(InputShape(448, 640)) == 240 * (448 * 640 - 224**2)
