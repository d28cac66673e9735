"""OpenVINO computes what torch does, and which precision is taken."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.images import card
from fakes.networks import random_wide_resnet
from numpy.typing import NDArray
from patchserve_server.engine.backbone.network import Network, open_network
from torch import Tensor, nn

from patchserve_server.domain.errors import BankMismatchError, StartupError
from patchserve_server.domain.reference import ReferenceOptions
from patchserve_server.engine.backbone import precision
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime, converted, has_bf16
from patchserve_server.engine.backbone.precision import TOLERANCE, map_difference, with_precision
from patchserve_server.engine.backbone.runtime import TorchRuntime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector

CPU = torch.device("cpu")
IMAGES: NDArray[np.uint8] = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(3)])


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Network]]:
    """In torch."""
    path = tmp_path_factory.mktemp("weights") / "wide_resnet50_2.pth"
    torch.save(random_wide_resnet().state_dict(), path)
    yield {
        "wide_resnet50_2": open_network("wide_resnet50_2", path, CPU),
        "efficientnet_lite2": open_network("efficientnet_lite2", None, CPU),
    }
    path.unlink()


@pytest.fixture(scope="module")
def compiled(networks: dict[str, Network]) -> dict[str, Network]:
    return {name: with_precision(network, "fp32") for name, network in networks.items()}


@torch.inference_mode()
def layers(network: Network, images: NDArray[np.uint8] = IMAGES) -> tuple[Tensor, ...]:
    return network.layers(images)


@pytest.mark.parametrize("name", BACKBONES)
def test_openvino_computes_what_torch_does(
    networks: dict[str, Network], compiled: dict[str, Network], name: str
) -> None:
    network = compiled[name]
    assert isinstance(network.runtime, OpenVinoRuntime)
    assert (network.device, network.precision) == (CPU, "fp32")
    for ours, theirs in zip(layers(network), layers(networks[name]), strict=True):
        assert theirs.std() > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    assert map_difference(networks[name], network) < 1e-5


@pytest.mark.parametrize("name", BACKBONES)
def test_an_image_does_not_depend_on_those_beside_it(compiled: dict[str, Network], name: str) -> None:
    network = compiled[name]
    together, backwards = layers(network), layers(network, IMAGES[::-1])
    for at in range(len(IMAGES)):
        for alone, one, other in zip(layers(network, IMAGES[at : at + 1]), together, backwards, strict=True):
            assert torch.equal(alone[0], one[at])
            assert torch.equal(alone[0], other[len(IMAGES) - 1 - at])


@pytest.mark.parametrize("name", BACKBONES)
def test_threads_do_not_disturb_each_other(compiled: dict[str, Network], name: str) -> None:
    expected = layers(compiled[name])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: layers(compiled[name]), range(6)):
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_nothing_is_left_to_what_openvino_thinks_best(networks: dict[str, Network]) -> None:
    network = networks["efficientnet_lite2"]
    runtime = OpenVinoRuntime(converted(network.module, 224), precision="fp32", threads=2)
    for compiled, streams in ((runtime._one_by_one, 1), (runtime._side_by_side, 2)):
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
        assert compiled.get_property("NUM_STREAMS") == streams
        assert not compiled.get_property("ENABLE_CPU_PINNING")


def test_images_run_side_by_side_only_where_there_are_enough_for_all_threads(networks: dict[str, Network]) -> None:
    network = networks["efficientnet_lite2"]
    runtime = OpenVinoRuntime(converted(network.module, 224), precision="fp32", threads=2)
    alone, together = runtime._one_by_one, runtime._side_by_side
    with runtime._model(1) as first:
        with runtime._model(1) as second:
            pass
        with runtime._model(2) as pair:
            pass
    with runtime._model(1) as later:
        pass
    assert [first, second, pair, later] == [alone, together, together, alone]
    images = np.random.default_rng(1).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
    many = runtime.layers(images)
    for at in range(5):
        one = runtime.layers(images[at : at + 1])
        assert all(torch.equal(layer[at], each[0]) for layer, each in zip(many, one, strict=True))


def test_openvino_tells_nobody(tmp_path: Path) -> None:
    """In a process of its own, whose home folder would get the id that reports carry."""
    code = (
        "from patchserve_server.bootstrap.process import configure_process; configure_process(); "
        "import patchserve_server.engine, sys; print([name for name in sys.modules if 'openvino_telemetry' in name])"
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


def test_bf16_is_what_the_processor_does_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        said = ("FP32", "BF16")

        def get_property(self, device: str, name: str) -> list[str]:
            assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
            return list(self.said)

    monkeypatch.setattr("openvino.Core", Core)
    for native, expected in (("amx_bf16", True), ("avx512_bf16", True), ("avx512_f", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {native: True})
        assert has_bf16() is expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(Core, "said", ("FP32",))
    assert not has_bf16()


@pytest.mark.skipif(not has_bf16(), reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("name", BACKBONES)
def test_bf16_maps_stay_what_they_are(networks: dict[str, Network], name: str) -> None:
    fast = with_precision(networks[name], "bf16")
    assert fast.precision == "bf16"
    assert 0 < map_difference(networks[name], fast) <= TOLERANCE


@dataclasses.dataclass
class MadeUpBf16:
    """A runtime that says bf16: torch's layers, then `change`d."""

    module: nn.Module
    change: Callable[[Tensor], Tensor]
    precision: str = "bf16"
    device: torch.device = CPU

    def layers(self, inputs: NDArray[np.uint8]) -> tuple[Tensor, ...]:
        return tuple(self.change(layer) for layer in TorchRuntime(self.module, CPU).layers(inputs))


def rounded(layer: Tensor) -> Tensor:
    return layer.bfloat16().float()


def broken(layer: Tensor) -> Tensor:
    return layer.roll(3, dims=3) * layer.roll(1, dims=1).sign()


def with_made_up_bf16(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    """A processor with bf16 and an OpenVINO that computes like this in it."""
    real = precision._compiled

    def made(network: Network, asked: str) -> Network:
        if asked == "bf16":
            return dataclasses.replace(network, runtime=MadeUpBf16(network.module, change))
        return real(network, asked)

    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_compiled", made)


@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_bf16_where_maps_agree(
    networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    with_made_up_bf16(monkeypatch, rounded)
    for network in networks.values():
        assert with_precision(network, asked).precision == "bf16"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_auto_falls_back_aloud_where_maps_differ(
    networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_made_up_bf16(monkeypatch, broken)
    for network in networks.values():
        found = with_precision(network, "auto")
        assert found.precision == "fp32"
        assert isinstance(found.runtime, OpenVinoRuntime)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert all("In bf16 maps differ by" in message for message in said)


def test_no_bf16_here(networks: dict[str, Network], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    network = networks["efficientnet_lite2"]
    assert with_precision(network, "auto").precision == "fp32"
    with pytest.raises(StartupError, match=r"this processor does not compute in it .*: use --precision fp32 or"):
        with_precision(network, "bf16")


def test_an_unknown_precision_is_told_the_known_ones(networks: dict[str, Network]) -> None:
    with pytest.raises(StartupError, match='no precision "fp16": use fp32, bf16, int8 or auto'):
        with_precision(networks["efficientnet_lite2"], "fp16")


def test_on_cuda_torch_runs_fp32(networks: dict[str, Network]) -> None:
    network = networks["efficientnet_lite2"]
    on_cuda = dataclasses.replace(network, runtime=TorchRuntime(network.module, torch.device("cuda", 0)))
    for asked in ("fp32", "auto"):
        assert with_precision(on_cuda, asked) is on_cuda
    with pytest.raises(StartupError, match="bf16 is for the CPU: use --device cpu, or --precision fp32"):
        with_precision(on_cuda, "bf16")


def test_banks_of_two_precisions_do_not_mix(monkeypatch: pytest.MonkeyPatch, networks: dict[str, Network]) -> None:
    with_made_up_bf16(monkeypatch, rounded)
    fast = create_detector(backbone="efficientnet_lite2", device="cpu", precision="bf16")
    exact = PatchCoreDetector(networks["efficientnet_lite2"])
    assert fast.info.precision == fast.spec.precision == "bf16"
    model = fast.fit(IMAGES, ReferenceOptions(), lambda _stage, _done, _total: None)
    fast.detect(model, IMAGES)
    with pytest.raises(BankMismatchError, match="with precision bf16, but this server runs precision fp32"):
        exact.detect(model, IMAGES)
