"""Loads a backbone and its weights in torch, by name, on a device."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import BackboneIdentity, SharedBackbone
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.downloads import DownloadError
from patchserve_server.engine.backbone.timm_networks import PREFIX, timm_spec
from patchserve_server.engine.backbone.torch_runtime import NormalizedLayers, TorchRuntime, fold_batch_norms
from patchserve_server.engine.backbone.weights import Weights, load_weights, read_weights, renamed

PREFERRED = "wide_resnet50_2"
EMBEDDED = "efficientnet_lite2"
AUTO = "auto"

_log = logging.getLogger(__name__)


def load_backbone(
    name: str, weights: Path | None, device: torch.device, layers: tuple[int, ...] = ()
) -> SharedBackbone[TorchRuntime]:
    """The backbone with this name, in torch.

    Args:
        name: a key of BACKBONES; `timm:NAME`; or `auto`: the preferred one, or the embedded one if the download of
            weights fails.
        weights: a .pth, .pt or .safetensors file; None for the backbone's own weights.
        device: where it runs.
        layers: the numbers of the used layers of `timm:NAME`; none for others, which have theirs.

    Raises:
        StartupError: the name or a layer is unknown, or the weights are missing, damaged or of another network.
    """
    spec = spec_of(name, layers)
    if weights is not None:
        return _assemble(spec, read_weights(weights), device)
    try:
        return _assemble(spec, spec.pretrained(), device)
    except DownloadError as error:
        reason = f"The weights of {spec.name} could not be downloaded: {error}."
        if name != AUTO:
            raise StartupError(
                f"{reason} Pass a file with --weights FILE (.pth or .safetensors), or use --backbone {AUTO} or "
                f"--backbone {EMBEDDED}, which needs no download."
            ) from error
    _log.warning(
        "%s USING THE EMBEDDED BACKBONE %s INSTEAD. Its scores are different, and it cannot use references of %s.",
        reason,
        EMBEDDED,
        PREFERRED,
    )
    spec = BACKBONES[EMBEDDED]
    return _assemble(spec, spec.pretrained(), device, fallback_reason=reason)


def spec_of(name: str, layers: tuple[int, ...]) -> BackboneSpec:
    """The backbone with this name; of `auto`, the preferred one.

    Raises:
        StartupError: the name or a layer is unknown.
    """
    if name.startswith(PREFIX):
        return timm_spec(name, layers)
    if name not in {*BACKBONES, AUTO}:
        raise StartupError(f'Unknown backbone "{name}". Use {", ".join(BACKBONES)}, {AUTO} or {PREFIX}NAME.')
    if layers:
        raise StartupError(f"--backbone-layers is for {PREFIX}NAME: {name} has its own layers.")
    return BACKBONES[PREFERRED if name == AUTO else name]


def _assemble(
    spec: BackboneSpec, weights: Weights, device: torch.device, fallback_reason: str = ""
) -> SharedBackbone[TorchRuntime]:
    with torch.device("meta"):
        full = spec.build()
        known = set(full.state_dict())
        used = spec.truncate(full)
    digest = load_weights(used, known, renamed(weights, spec.rename, spec.name), spec.name)
    module = NormalizedLayers(used, spec).eval().requires_grad_(requires_grad=False)
    if spec.has_plain_batch_norms:
        fold_batch_norms(module)
    # Channels last is how images arrive, and the faster order for convolutions on CPUs and on GPUs.
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SharedBackbone(BackboneIdentity(spec, digest, weights.source, fallback_reason), TorchRuntime(module, device))
