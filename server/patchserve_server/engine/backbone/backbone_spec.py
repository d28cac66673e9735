"""The properties of a backbone that do not depend on its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from patchserve_server.domain.input_options import DEFAULT_SIDE_PX, InputShape
from patchserve_server.engine.backbone.weights import StateDict, Weights

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Int8Recipe:
    """How int8 treats a network (docs/adr/0009)."""

    float_layers: str  # a regular expression: the convolutions that stay in fp32
    network_bytes: int  # main memory of one network for 224 x 224 px, as measured
    bytes_per_px: int  # what each further pixel of its inputs takes, for each image that runs at once


def _unchanged(state: StateDict) -> StateDict:
    return state


def _not_stored() -> None:
    return None


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Architecture, used layers, preprocessing, and where the weights come from."""

    name: str
    normalization: str  # names mean and std; banks record it
    step_px: int  # the sides of model inputs are multiples of it
    stride_px: int  # one patch for each square of the model input with this side; every layer is resized to this grid
    mean: tuple[float, float, float]  # of RGB values from 0 to 1
    std: tuple[float, float, float]
    feature_dim: int  # the sum of the channels of all layers
    bytes_per_px: int  # main memory of its fp32 buffers for each pixel of an image, for each image that runs at once
    int8: Int8Recipe | None  # None: not measured, and refused
    build: Callable[[], nn.Module]  # the full network; called on torch's meta device, where it uses no memory
    truncate: Callable[[nn.Module], nn.Module]  # the used layers of it: (B, 3, H, W) -> layers, each (B, C, h, w)
    pretrained: Callable[[], Weights]  # raises DownloadError
    stored: Callable[[], Path | None] = _not_stored  # the file that `pretrained` would read, if it is here already
    rename: Callable[[StateDict], StateDict] = _unchanged  # weights by the names of `build`, from their authors'
    has_plain_batch_norms: bool = True  # each follows its convolution, and includes no activation
    is_checked: bool = True  # by our tests: OpenVINO computes the same as torch; else a start compares them

    def grid_of(self, shape: InputShape) -> tuple[int, int]:
        """The patch grid (rows, columns) of model inputs of this shape."""
        return shape.height_px // self.stride_px, shape.width_px // self.stride_px

    def patches_of(self, shape: InputShape) -> int:
        """The number of patches of a model input of this shape."""
        rows, columns = self.grid_of(shape)
        return rows * columns

    def preprocessing_of(self, shape: InputShape) -> str:
        """Names input shape, interpolation, mean and std; banks record it."""
        size = str(DEFAULT_SIDE_PX) if shape == InputShape.square() else f"{shape.width_px}x{shape.height_px}"
        return f"bilinear-{size}/{self.normalization}"
