"""Any other network of timm by name: `timm:NAME` with the numbers of its layers.

Convolutional networks give their feature maps, as in PatchCore; vision transformers the patch tokens of their blocks
after the final norm, of unit length, as DINOv2 and DINOv3 do.
"""

from __future__ import annotations

import difflib
import math
from functools import partial
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import DEFAULT_SIDE_PX
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.downloads import DownloadError, download_from_hub, downloaded_from_hub
from patchserve_server.engine.backbone.timm_package import import_timm
from patchserve_server.engine.backbone.weights import Weights

PREFIX: Final = "timm:"

_BYTES_PER_PX = 400  # not measured: that of wide_resnet50_2, a large one
_SUGGESTIONS = 3
_FLAG = "--backbone-layers"


def timm_spec(name: str, layers: tuple[int, ...]) -> BackboneSpec:
    """The spec of a network.

    Args:
        name: `timm:NAME`, with or without the tag of its weights: `timm:resnet18`, `timm:resnet18.a1_in1k`.
        layers: numbers of stages (convolutional networks) or blocks (transformers), from 0, ascending.

    Raises:
        StartupError: timm is not installed, the name or a layer is unknown, or the network cannot be a backbone.
    """
    timm = import_timm()
    config = _config_of(timm, name)
    with torch.device("meta"):
        full = _build(timm, name)
        _require_layers(full, name, layers)
        step_px = _step_px(full, name, layers)
        shapes = _layer_shapes(_TimmLayers(full, layers), name, step_px)
    stride_px = min(DEFAULT_SIDE_PX // height for _, height, _ in shapes)
    return BackboneSpec(
        name=f"{name} (layers {','.join(map(str, layers))})",
        normalization=f"{config.mean}/{config.std}",
        step_px=step_px,
        stride_px=stride_px,
        mean=config.mean,
        std=config.std,
        feature_dim=sum(channels for channels, _, _ in shapes),
        bytes_per_px=_BYTES_PER_PX,
        int8=None,
        build=partial(_build_on_cpu, timm, name),
        truncate=partial(_TimmLayers, layers=layers),
        pretrained=partial(_pretrained, name, config.hf_hub_id),
        stored=lambda: downloaded_from_hub(config.hf_hub_id or name),
        has_plain_batch_norms=False,
        is_checked=False,
    )


class _TimmLayers(nn.Module):
    """Some layers of a network, (B, C, h, w) each. Its weights have the names that they have in the network."""

    def __init__(self, full: nn.Module, layers: tuple[int, ...]) -> None:
        super().__init__()
        network: Any = full
        network.prune_intermediate_layers(list(layers), prune_norm=False, prune_head=True)
        self.network = network
        self._layers = list(layers)
        self._is_transformer = _is_transformer(full)

    def state_dict(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as of nn.Module
        return self.network.state_dict(*args, **options)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return self.network.load_state_dict(*args, **options)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        layers: list[Tensor] = self.network.forward_intermediates(
            images, indices=self._layers, norm=self._is_transformer, intermediates_only=True
        )
        if not self._is_transformer:
            return tuple(layers)
        return tuple(functional.normalize(layer, dim=1) / len(layers) ** 0.5 for layer in layers)


def _is_transformer(network: nn.Module) -> bool:
    return hasattr(network, "num_prefix_tokens")


def _config_of(timm: ModuleType, name: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg
    """Mean, standard deviation and weights of a network."""
    architecture = name.removeprefix(PREFIX)
    try:
        config = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    except RuntimeError:  # an unknown tag
        config = None
    if config is None:
        known = [*timm.list_models(), *timm.list_pretrained()]
        nearest = difflib.get_close_matches(architecture, known, _SUGGESTIONS, cutoff=0.5)
        hint = f" Nearest: {', '.join(PREFIX + each for each in nearest)}." if nearest else ""
        raise StartupError(f'timm has no network "{architecture}".{hint}')
    return config


def _build(timm: ModuleType, name: str) -> nn.Module:
    architecture = name.removeprefix(PREFIX)
    try:
        network: nn.Module = timm.create_model(architecture, pretrained=False, dynamic_img_size=True)
    except TypeError:  # it has no such option
        network = timm.create_model(architecture, pretrained=False)
        if network.pretrained_cfg["fixed_input_size"]:  # type: ignore[index]
            raise StartupError(f"{name} cannot be a backbone: it takes images of one size only.") from None
    return network


def _build_on_cpu(timm: ModuleType, name: str) -> nn.Module:
    with torch.device("cpu"):  # some constants are no weights, and are computed while it is built
        return _build(timm, name)


def _require_layers(full: nn.Module, name: str, layers: tuple[int, ...]) -> None:
    info: list[dict[str, Any]] = list(full.feature_info)  # type: ignore[arg-type]
    if layers and max(layers) < len(info):
        return
    listed = ", ".join(
        f"{number} ({each['num_chs']} channels, 1/{each['reduction']})" for number, each in enumerate(info)
    )
    wrong = f"{name} has no layer {max(layers)}." if layers else f"Name the layers of {name} with {_FLAG}."
    raise StartupError(f"{wrong} It has {listed}; {_FLAG} takes their numbers, such as 1,2.")


def _step_px(full: nn.Module, name: str, layers: tuple[int, ...]) -> int:
    """The least common multiple of the strides of the used layers."""
    info: list[dict[str, Any]] = list(full.feature_info)  # type: ignore[arg-type]
    step_px = math.lcm(*(info[layer]["reduction"] for layer in layers))
    if DEFAULT_SIDE_PX % step_px:
        raise StartupError(f"{name} cannot be a backbone: its layers do not divide images of {DEFAULT_SIDE_PX} px.")
    return step_px


def _layer_shapes(layers: nn.Module, name: str, step_px: int) -> list[tuple[int, int, int]]:
    """(C, h, w) of the layers of an image of DEFAULT_SIDE_PX; a wider image must have as many more columns."""
    sides_px = (DEFAULT_SIDE_PX, DEFAULT_SIDE_PX + 2 * step_px)
    layers.eval()
    try:
        with torch.no_grad():
            square, wide = (
                [tuple(layer.shape[1:]) for layer in layers(torch.zeros(1, 3, DEFAULT_SIDE_PX, side_px))]
                for side_px in sides_px
            )
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise StartupError(f"{name} cannot be a backbone: it does not take images of every shape.") from error
    fits = all(
        height == width and DEFAULT_SIDE_PX % height == 0 and columns * DEFAULT_SIDE_PX == width * sides_px[1]
        for (_, height, width), (_, _, columns) in zip(square, wide, strict=True)
    )
    if not fits:
        raise StartupError(f"{name} cannot be a backbone: its layers do not lie on a regular grid.")
    return square


def _pretrained(name: str, repository: str | None) -> Weights:
    if repository is None:
        raise DownloadError(f"timm knows no weights of {name} on the Hub")
    return download_from_hub(repository)
