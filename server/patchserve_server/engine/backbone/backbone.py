"""The backbone: its fixed properties, and the runtime for each reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.runtime import BF16, Runtime

R_co = TypeVar("R_co", bound=Runtime, covariant=True)


class Backbone(Protocol):
    """A backbone with its weights, on its device. Safe to use from several threads at once."""

    @property
    def spec(self) -> BackboneSpec:
        """Steps of input sizes, stride of the patch grid and the other fixed properties."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hexadecimal) of the weights in use."""

    @property
    def weights_source(self) -> str:
        """The source of the weights, as text."""

    @property
    def fallback_reason(self) -> str:
        """Why this is not the preferred backbone; empty if it is the requested one."""

    @property
    def device(self) -> torch.device:
        """Where the feature maps are."""

    @property
    def precision(self) -> str:
        """The number format that it computes in: FP32, BF16 or INT8."""

    @property
    def has_device_runtime(self) -> bool:
        """Whether its runtimes are those of a GPU: batches are scored there, without a wait for each step."""

    def bytes_per_reference(self, shape: InputShape, /) -> int:
        """Main memory of a reference's own runtime for images of this shape; 0 if all references share one runtime."""

    def shared_bytes(self, shape: InputShape, /) -> int:
        """Main memory of the shared runtime's buffers for images of this shape, beyond those for 224 x 224 px.

        They are allocated for the largest image so far, and kept. 0 if no runtime is shared.
        """

    def runtime_for(self, inputs: ModelInputs, progress: Progress, /) -> Runtime:
        """The runtime for a reference of these images (N, H, W, 3) uint8. May take seconds.

        Equal images in the same order always get an equal runtime.

        Args:
            inputs: the masked model inputs of the reference.
            progress: called with QUANTIZE while a network is quantized. If it raises, the work ends without a result.
        """


@dataclass(frozen=True, slots=True)
class BackboneIdentity:
    """The properties of a backbone that do not depend on the runtime. `Backbone` explains the fields."""

    spec: BackboneSpec
    weights_digest: str
    weights_source: str
    fallback_reason: str = ""


class IdentifiedBackbone:
    """The part of `Backbone` that does not depend on the runtime."""

    def __init__(self, identity: BackboneIdentity) -> None:
        self.identity = identity

    @property
    def spec(self) -> BackboneSpec:
        return self.identity.spec

    @property
    def weights_digest(self) -> str:
        return self.identity.weights_digest

    @property
    def weights_source(self) -> str:
        return self.identity.weights_source

    @property
    def fallback_reason(self) -> str:
        return self.identity.fallback_reason

    @property
    def has_device_runtime(self) -> bool:
        return False


class SharedBackbone(IdentifiedBackbone, Generic[R_co]):
    """A `Backbone` with one runtime for all references."""

    def __init__(self, identity: BackboneIdentity, runtime: R_co) -> None:
        super().__init__(identity)
        self._runtime = runtime

    @property
    def runtime(self) -> R_co:
        return self._runtime

    @property
    def device(self) -> torch.device:
        return self._runtime.device

    @property
    def precision(self) -> str:
        return self._runtime.precision

    @property
    def has_device_runtime(self) -> bool:
        return isinstance(self._runtime, DeviceRuntime)

    def bytes_per_reference(self, _shape: InputShape, /) -> int:
        return 0

    def shared_bytes(self, shape: InputShape, /) -> int:
        further_px = max(0, shape.pixels - InputShape.square().pixels)
        nbytes = self.spec.bytes_per_px * further_px * self._runtime.streams
        return nbytes // 2 if self.precision == BF16 else nbytes

    def runtime_for(self, _inputs: ModelInputs, _progress: Progress, /) -> Runtime:
        return self._runtime
