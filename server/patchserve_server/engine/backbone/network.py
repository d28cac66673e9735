"""A backbone that is ready to run: chosen, loaded, folded and on its device."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.architectures import BACKBONES, BackboneSpec
from patchserve_server.engine.backbone.int8.quantizer import Quantizer
from patchserve_server.engine.backbone.runtime import INT8, NormalizedLayers, Runtime, TorchRuntime
from patchserve_server.engine.backbone.weights import DownloadError, Weights, load_weights, read_weights

PREFERRED = "wide_resnet50_2"
EMBEDDED = "efficientnet_lite2"
AUTO = "auto"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The used layers of a backbone with their weights. Runs in several threads at once."""

    spec: BackboneSpec
    weights_digest: str
    weights_source: str
    fallback_reason: str
    module: nn.Module  # (B, S, S, 3) uint8 -> layers, in torch
    runtime: Runtime  # what runs it
    quantizer: Quantizer | None = None  # int8: makes what runs it for each reference, and `runtime` is for none

    @property
    def device(self) -> torch.device:
        return self.runtime.device

    @property
    def precision(self) -> str:
        return INT8 if self.quantizer else self.runtime.precision

    def for_reference(self, images: ModelInputs, progress: Progress) -> Network:
        """The network for a reference of these images (N, S, S, 3): this very one, unless each has its own."""
        if self.quantizer is None:
            return self
        return dataclasses.replace(self, runtime=self.quantizer.for_reference(images, progress), quantizer=None)

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        """Feature maps (B, C, H, W) float32 on the device, the finest first, of inputs (B, S, S, 3) uint8."""
        return self.runtime.layers(inputs)


def open_network(backbone: str, weights: Path | None, device: torch.device) -> Network:
    """The network of a backbone's name, in torch; `auto` is the preferred one, or the embedded where its weights lack.

    Raises:
        StartupError: no such backbone, or no sound weights for it.
    """
    if backbone not in {*BACKBONES, AUTO}:
        raise StartupError(f'There is no backbone "{backbone}": use {", ".join(BACKBONES)} or {AUTO}.')
    spec = BACKBONES[PREFERRED if backbone == AUTO else backbone]
    if weights is not None:
        return _assembled(spec, read_weights(weights), device)
    try:
        return _assembled(spec, spec.pretrained(), device)
    except DownloadError as error:
        if backbone != AUTO:
            raise StartupError(
                f"The weights of {spec.name} could not be fetched: {error}. Give a file with --weights FILE "
                f"(.pth or .safetensors), or use --backbone {AUTO} or --backbone {EMBEDDED}, which needs no network."
            ) from error
        reason = f"The weights of {spec.name} could not be fetched: {error}."
    _log.warning("%s USING THE EMBEDDED BACKBONE %s INSTEAD: scores differ, references do not mix.", reason, EMBEDDED)
    spec = BACKBONES[EMBEDDED]
    return _assembled(spec, spec.pretrained(), device, fallback_reason=reason)


def _assembled(spec: BackboneSpec, weights: Weights, device: torch.device, fallback_reason: str = "") -> Network:
    with torch.device("meta"):
        whole = spec.build()
        part = spec.truncate(whole)
    digest = load_weights(part, whole, weights, spec.name)
    module = NormalizedLayers(part, spec).eval().requires_grad_(requires_grad=False)
    _fold_batch_norms(module)
    # Channels last is how images arrive, and the faster order for convolutions on either kind of device.
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(spec, digest, weights.source, fallback_reason, module, TorchRuntime(module, device))


def _fold_batch_norms(network: nn.Module) -> None:
    """Multiplies each batch norm into the convolution before it, in place: the same function in half the passes.

    Before means: registered right before it in the same module, which is so in every network here.
    """
    for parent in network.modules():
        convolution = ""
        for name, child in list(parent.named_children()):
            if convolution and isinstance(child, nn.BatchNorm2d):
                setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), child))
                setattr(parent, name, nn.Identity())
            convolution = name if isinstance(child, nn.Conv2d) else ""
