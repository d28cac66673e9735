"""WideResNet-50-2 has the layers, the names and the results of torchvision's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torchvision.models import Wide_ResNet50_2_Weights, wide_resnet50_2

from patchserve_server.engine.backbone import wide_resnet
from patchserve_server.engine.backbone.weights import Weights
from patchserve_server.engine.backbone.wide_resnet import WideResNet50, WideResNetLayers


def test_its_layers_equal_torchvisions_to_the_last_bit() -> None:
    torch.manual_seed(0)
    theirs = wide_resnet50_2().eval()
    ours = WideResNet50().eval()
    ours.load_state_dict(theirs.state_dict())  # the same names and shapes
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        features = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        layer2 = theirs.layer2(theirs.layer1(features))
        expected = layer2, theirs.layer3(layer2)
        layers = WideResNetLayers(ours)(images)
    assert all(torch.equal(our, their) for our, their in zip(layers, expected, strict=True))
    assert [layer.shape[1] for layer in layers] == [512, 1024]


def test_the_weights_are_downloaded_from_where_torchvision_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_resnet, "download_weights", lambda url, _: Weights({}, url))
    assert wide_resnet.pretrained_weights().source == Wide_ResNet50_2_Weights.IMAGENET1K_V1.url


def test_building_the_backbones_imports_neither_torchvision_nor_the_compiler_of_torch() -> None:
    """They take two of the five seconds of a start."""
    program = (
        "import sys, torch\n"
        "from patchserve_server.engine.backbone.architectures import BACKBONES\n"
        "for name in ('wide_resnet50_2', 'efficientnet_lite2'):\n"
        "    with torch.device('meta'):\n"
        "        BACKBONES[name].truncate(BACKBONES[name].build())\n"
        "print([name for name in ('torchvision', 'torch._dynamo', 'sympy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
