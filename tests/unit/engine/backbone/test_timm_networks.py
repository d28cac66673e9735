"""Networks of timm by name: which can be a backbone, and what their layers are."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from fakes.networks import random_transformer_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone import precision
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.timm_networks import timm_spec
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.map_difference import map_difference

CPU = torch.device("cpu")
CONVOLUTIONAL = ("timm:test_efficientnet", (2, 3))
TRANSFORMER = ("timm:test_vit", (2, 5))
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 224, 256, 3), dtype=np.uint8)


def full_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    if hasattr(network, "num_prefix_tokens"):
        network.load_state_dict(random_transformer_weights(network))
    return network.eval()


def loaded(name: str, layers: tuple[int, ...], folder: Path) -> SharedBackbone[TorchRuntime]:
    path = folder / "weights.safetensors"
    save_file(full_network(name).state_dict(), path)
    return load_backbone(name, path, CPU, layers)


@torch.inference_mode()
def outputs_of(network: nn.Module, modules: list[str], images: Tensor) -> list[Tensor]:
    """What these modules of a full network give, caught by hooks."""
    caught: list[Tensor] = []
    for name in modules:
        network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    network(images)
    return caught


def test_layers_of_a_convolutional_network_are_its_stages(tmp_path: Path) -> None:
    name, layers = CONVOLUTIONAL
    backbone = loaded(name, layers, tmp_path)
    spec, network = backbone.spec, full_network(name)
    modules = [info["module"] for info in network.feature_info]  # type: ignore[union-attr]
    inputs = (torch.from_numpy(IMAGES) / 255 - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    expected = outputs_of(network, [modules[layer] for layer in layers], inputs.permute(0, 3, 1, 2))
    with torch.inference_mode():
        actual = backbone.runtime.layers(IMAGES)
    config = network.pretrained_cfg
    assert (spec.mean, spec.std) == (config["mean"], config["std"])  # type: ignore[index]
    assert sum(layer.shape[1] for layer in actual) == spec.feature_dim
    assert tuple(actual[0].shape[2:]) == spec.grid_of(InputShape(224, 256))
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_layers_of_a_transformer_are_unit_vectors_of_its_blocks(tmp_path: Path) -> None:
    backbone = loaded(*TRANSFORMER, tmp_path)
    with torch.inference_mode():
        layers = backbone.runtime.layers(IMAGES)
    assert [tuple(layer.shape) for layer in layers] == [(2, 64, 14, 16)] * 2
    for layer in layers:
        torch.testing.assert_close(layer.square().sum(dim=1), torch.full((2, 14, 16), 0.5))
        assert layer.std(dim=(2, 3)).mean() > 0.01


@pytest.mark.parametrize(("name", "layers"), [CONVOLUTIONAL, TRANSFORMER])
def test_it_runs_in_openvino_where_that_computes_the_same(tmp_path: Path, name: str, layers: tuple[int, ...]) -> None:
    exact = loaded(name, layers, tmp_path)
    compiled = with_precision(exact, "fp32", map_difference=map_difference)
    runtime = compiled.runtime_for(IMAGES, lambda *_: None)
    assert isinstance(runtime, OpenVinoRuntime)
    assert map_difference(exact.spec, exact.runtime, runtime) < 1e-4


def other_values(compiled: SharedBackbone[OpenVinoRuntime]) -> SharedBackbone[OpenVinoRuntime]:
    layers_of = compiled.runtime.layers
    compiled.runtime.layers = lambda inputs: tuple(1.01 * layer for layer in layers_of(inputs))  # type: ignore[method-assign]
    return compiled


def failure(_compiled: SharedBackbone[OpenVinoRuntime]) -> SharedBackbone[OpenVinoRuntime]:
    raise RuntimeError("No conversion rule found for operations: aten::something")


@pytest.mark.parametrize("change", [other_values, failure])
def test_it_runs_in_torch_where_openvino_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[SharedBackbone[OpenVinoRuntime]], SharedBackbone[OpenVinoRuntime]],
) -> None:
    exact, compile_real = loaded(*CONVOLUTIONAL, tmp_path), precision._compile
    monkeypatch.setattr(precision, "_compile", lambda *args: change(compile_real(*args)))
    assert with_precision(exact, "auto", map_difference=map_difference) is exact
    assert any("using torch" in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    with pytest.raises(StartupError, match="bf16 needs OpenVINO, which cannot run timm:test_efficientnet"):
        with_precision(exact, "bf16", map_difference=map_difference)


def test_int8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"int8 is for wide_resnet50_2 and efficientnet_lite2, not for timm:"):
        with_precision(loaded(*CONVOLUTIONAL, tmp_path), "int8", map_difference=map_difference)


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("timm:resnet81", (1,), r'timm has no network "resnet81"\. Nearest: timm:resnet'),
        ("timm:resnet18.nothing", (1,), r"Nearest: .*timm:resnet18\."),
        ("timm:", (1,), 'timm has no network ""'),
        ("timm:hf-hub:owner/network", (1,), "timm has no network"),
        (
            "timm:resnet18",
            (),
            r"Name the layers of timm:resnet18 with --backbone-layers\. It has 0 \(64 channels, 1/2\)",
        ),
        ("timm:resnet18", (2, 9), r"timm:resnet18 has no layer 9\. It has .* 4 \(512 channels, 1/32\)"),
        ("timm:beit_base_patch16_224", (5,), "takes images of one size only"),
        ("timm:inception_v3", (2,), "do not lie on a regular grid"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(name: str, layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        timm_spec(name, layers)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(full_network(TRANSFORMER[0]).state_dict(), path)
    with pytest.raises(StartupError, match=r"not those of timm:test_efficientnet \(layers 2,3\)\. They lack"):
        load_backbone(CONVOLUTIONAL[0], path, CPU, CONVOLUTIONAL[1])


def test_other_backbones_have_their_own_layers() -> None:
    with pytest.raises(StartupError, match="--backbone-layers is for timm:NAME: efficientnet_lite2 has its own layers"):
        load_backbone("efficientnet_lite2", None, CPU, (1,))


@pytest.mark.parametrize("name", ["timm:resnet18", "dinov2_vits14"])
def test_without_timm_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    (weights := tmp_path / "weights.pth").touch()
    torch.save({}, weights)
    with pytest.raises(StartupError, match=r'needs timm, .* `pip install "\.\[server,timm\]"`'):
        load_backbone(name, weights, CPU, (1,) if name.startswith("timm:") else ())
