"""All backbones in torch, loaded once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from fakes.networks import WideResNet, random_transformer_weights, random_wide_resnet
from safetensors.torch import save_file

from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def wide_resnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WideResNet]:
    network = random_wide_resnet()
    path = tmp_path_factory.mktemp("weights") / "wide_resnet50_2.pth"
    torch.save(network.state_dict(), path)
    yield WideResNet(network, path)
    path.unlink()


@pytest.fixture(scope="session")
def backbones(
    wide_resnet: WideResNet, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, SharedBackbone[TorchRuntime]]:
    """By name, in torch on the CPU."""
    loaded = {
        "wide_resnet50_2": load_backbone("wide_resnet50_2", wide_resnet.weights, CPU),
        "efficientnet_lite2": load_backbone("efficientnet_lite2", None, CPU),
    }
    for name in BACKBONES.keys() - loaded:
        path = tmp_path_factory.mktemp("weights") / f"{name}.safetensors"
        save_file(random_transformer_weights(BACKBONES[name].build()), path)
        loaded[name] = load_backbone(name, path, CPU)
        path.unlink()
    return loaded
