"""The backbone as the layers above see it: its fixed facts, and a runtime for each reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.architectures import BackboneSpec
from patchserve_server.engine.backbone.runtime import Runtime

R_co = TypeVar("R_co", bound=Runtime, covariant=True)


class Backbone(Protocol):
    """A backbone with its weights, on its device. Safe to use from several threads at once."""

    @property
    def spec(self) -> BackboneSpec:
        """Input size, patch grid and the other fixed facts."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hexadecimal) of the weights in use."""

    @property
    def weights_source(self) -> str:
        """Where the weights came from, in words."""

    @property
    def fallback_reason(self) -> str:
        """Why this is not the preferred backbone; empty if it is the one that was asked for."""

    @property
    def device(self) -> torch.device:
        """Where the feature maps are."""

    @property
    def precision(self) -> str:
        """The number format that it computes in: FP32, BF16 or INT8."""

    @property
    def bytes_per_reference(self) -> int:
        """Main memory that each reference's own runtime takes; 0 if all references share one."""

    def runtime_for(self, inputs: ModelInputs, progress: Progress, /) -> Runtime:
        """The runtime for a reference of these images (N, S, S, 3) uint8. May take seconds.

        The same images in the same order always get an equal runtime.

        Args:
            inputs: the reference's images as the backbone sees them.
            progress: called with QUANTIZE while a network is quantized. If it raises, the work ends without a result.
        """


@dataclass(frozen=True, slots=True)
class BackboneIdentity:
    """What a backbone is, whichever runtime executes it. The fields are those of `Backbone`."""

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


class SharedBackbone(IdentifiedBackbone, Generic[R_co]):
    """A `Backbone` with one runtime for all references."""

    bytes_per_reference = 0

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

    def runtime_for(self, _inputs: ModelInputs, _progress: Progress, /) -> Runtime:
        return self._runtime
