"""WideResNet-50-2 (Zagoruyko and Komodakis 2016), with the names of torchvision's weights.

torchvision has the same layers, but its import takes a second or two, for the compiler of torch that nobody uses here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from patchserve_server.engine.backbone.downloads import download_weights, downloaded
from patchserve_server.engine.backbone.weights import Weights

_WEIGHTS_URL: Final = "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth"
_STEM_CHANNELS: Final = 64
_BLOCKS: Final = (3, 4, 6, 3)  # of layer1 to layer4
_CHANNELS: Final = (256, 512, 1024, 2048)
_CLASSES: Final = 1000


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut. Inside, it has half of the channels: twice ResNet-50's."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        inner = self.relu(self.bn1(self.conv1(features)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        added: Tensor = self.relu(self.bn3(self.conv3(inner)) + shortcut)
        return added


class WideResNet50(nn.Module):
    """All layers that the weights are for. `WideResNetLayers` runs those that are used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_CHANNELS, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = _STEM_CHANNELS
        for number, (blocks, outputs) in enumerate(zip(_BLOCKS, _CHANNELS, strict=True), start=1):
            first = _Bottleneck(inputs, outputs, 1 if number == 1 else 2)
            others = (_Bottleneck(outputs, outputs, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
            inputs = outputs
        self.fc = nn.Linear(inputs, _CLASSES)


class WideResNetLayers(nn.Module):
    """layer2 (512, 28, 28) and layer3 (1024, 14, 14)."""

    def __init__(self, full: nn.Module) -> None:
        super().__init__()
        network: Any = full
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3 = network.layer1, network.layer2, network.layer3

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer2 = self.layer2(self.layer1(stem))
        return layer2, self.layer3(layer2)


def stored_weights() -> Path | None:
    """The file of `pretrained_weights`, if it was downloaded."""
    return downloaded(_WEIGHTS_URL)


def pretrained_weights() -> Weights:
    """Those of torchvision, IMAGENET1K_V1, downloaded once.

    Raises:
        DownloadError: they cannot be downloaded.
    """
    return download_weights(_WEIGHTS_URL, "torchvision IMAGENET1K_V1")
