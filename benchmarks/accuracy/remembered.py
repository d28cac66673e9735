"""The engine in this process, with a backbone that sees each image only once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.backbone.backbone import BackboneIdentity, SharedBackbone
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.runtime import CPU_PASS, FP32, Runtime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.map_difference import map_difference

BACKBONE = "efficientnet_lite2"
MAX_BYTES = 2**31


class RememberedLayers:
    """A runtime that computes the layers of an image once, and then knows them. Not for timing."""

    nbytes = 0
    streams = 1
    largest_pass = CPU_PASS

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: OrderedDict[bytes, tuple[Tensor, ...]] = OrderedDict()
        self._known_bytes = 0
        self.precision, self.device = runtime.precision, runtime.device

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        by_image = [self._layers_of(np.ascontiguousarray(image)) for image in inputs]
        return tuple(torch.stack(layer) for layer in zip(*by_image, strict=True))

    def _layers_of(self, image: ModelInputs) -> tuple[Tensor, ...]:
        key = hashlib.blake2b(image.tobytes(), salt=str(image.shape).encode()[:16]).digest()
        if key not in self._known:
            self._known[key] = tuple(layer[0].clone() for layer in self._runtime.layers(image[None]))
            self._known_bytes += _nbytes(self._known[key])
            while self._known_bytes > MAX_BYTES:
                self._known_bytes -= _nbytes(self._known.popitem(last=False)[1])
        else:
            self._known.move_to_end(key)
        return self._known[key]


def _nbytes(layers: tuple[Tensor, ...]) -> int:
    return sum(layer.nbytes for layer in layers)


def plain_detector() -> PatchCoreDetector:
    """The detector of a server with the embedded backbone in fp32 on the CPU."""
    return PatchCoreDetector(_backbone())


def remembering_detector() -> PatchCoreDetector:
    """The same, with remembered layers."""
    backbone = _backbone()
    identity = BackboneIdentity(backbone.spec, backbone.weights_digest, backbone.weights_source)
    return PatchCoreDetector(SharedBackbone(identity, RememberedLayers(backbone.runtime)))


def _backbone() -> SharedBackbone[OpenVinoRuntime]:
    in_torch = load_backbone(BACKBONE, None, torch.device("cpu"))
    backbone = with_precision(in_torch, FP32, map_difference=map_difference)
    if not isinstance(backbone, SharedBackbone):
        raise TypeError("fp32 needs no network of its own for each reference")
    return backbone
