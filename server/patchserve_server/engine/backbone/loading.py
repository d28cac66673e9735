"""Loads a backbone and its weights in torch, by name, on a device."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.architectures import BACKBONES, BackboneSpec
from patchserve_server.engine.backbone.backbone import BackboneIdentity, SharedBackbone
from patchserve_server.engine.backbone.torch_runtime import NormalizedLayers, TorchRuntime, fold_batch_norms
from patchserve_server.engine.backbone.weights import DownloadError, Weights, load_weights, read_weights

PREFERRED = "wide_resnet50_2"
EMBEDDED = "efficientnet_lite2"
AUTO = "auto"

_log = logging.getLogger(__name__)


def load_backbone(name: str, weights: Path | None, device: torch.device) -> SharedBackbone[TorchRuntime]:
    """The backbone with this name, in torch.

    Args:
        name: a key of BACKBONES; or `auto`: the preferred one, or the embedded one if the download of weights fails.
        weights: a .pth, .pt or .safetensors file; None for the backbone's own weights.
        device: where it runs.

    Raises:
        StartupError: the name is unknown, or the weights are missing, damaged or of another network.
    """
    if name not in {*BACKBONES, AUTO}:
        raise StartupError(f'Unknown backbone "{name}". Use {", ".join(BACKBONES)} or {AUTO}.')
    spec = BACKBONES[PREFERRED if name == AUTO else name]
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


def _assemble(
    spec: BackboneSpec, weights: Weights, device: torch.device, fallback_reason: str = ""
) -> SharedBackbone[TorchRuntime]:
    with torch.device("meta"):
        full = spec.build()
        used = spec.truncate(full)
    digest = load_weights(used, full, weights, spec.name)
    module = NormalizedLayers(used, spec).eval().requires_grad_(requires_grad=False)
    fold_batch_norms(module)
    # Channels last is how images arrive, and the faster order for convolutions on CPUs and on GPUs.
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SharedBackbone(BackboneIdentity(spec, digest, weights.source, fallback_reason), TorchRuntime(module, device))
