"""int8: each reference has its own network, quantized on its images (docs/adr/0009)."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import openvino
import torch

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.backbone import BackboneIdentity, IdentifiedBackbone
from patchserve_server.engine.backbone.backbone_spec import Int8Recipe
from patchserve_server.engine.backbone.int8.network_cache import NetworkCache, NetworkFile
from patchserve_server.engine.backbone.int8.quantizer import RECIPE
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime, stream_count
from patchserve_server.engine.backbone.runtime import INT8

Quantize: TypeAlias = Callable[[ModelInputs, Progress], openvino.Model]

_log = logging.getLogger(__name__)


class PerReferenceBackbone(IdentifiedBackbone):
    """A `Backbone` with a runtime for each reference. References with equal images share one.

    A runtime that is in memory or in the cache never waits for the quantization of another reference.
    """

    precision = INT8
    device = torch.device("cpu")

    def __init__(
        self,
        identity: BackboneIdentity,
        recipe: Int8Recipe,
        quantize: Quantize,
        *,
        threads: int,
        cache: NetworkCache | None,
    ) -> None:
        """Create it without quantizing anything.

        Args:
            identity: of the backbone in fp32.
            recipe: what `quantize` follows.
            quantize: creates the network for one reference's images; called by one thread at a time.
            threads: as in OpenVinoRuntime.
            cache: stores networks over a restart; None keeps them in memory only.
        """
        super().__init__(identity)
        self._recipe, self._quantize, self._threads, self._cache = recipe, quantize, threads, cache
        self._lock = threading.Lock()  # protects the two dictionaries; never held for long
        self._runtimes: WeakValueDictionary[str, OpenVinoRuntime] = WeakValueDictionary()
        self._key_locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._quantization = threading.Lock()  # quantizing uses all cores

    def bytes_per_reference(self, shape: InputShape, /) -> int:
        further_px = max(0, shape.pixels - InputShape.square().pixels)
        return self._recipe.network_bytes + self._recipe.bytes_per_px * further_px * stream_count(self._threads)

    def shared_bytes(self, _shape: InputShape, /) -> int:
        return 0

    def runtime_for(self, inputs: ModelInputs, progress: Progress, /) -> OpenVinoRuntime:
        key = self._key(inputs)
        with self._lock:
            runtime = self._runtimes.get(key)
            key_lock = self._key_locks.setdefault(key, threading.Lock())  # removed when no thread uses it
        if runtime is not None:
            return runtime
        with key_lock:  # other threads that need this network wait here and then find the runtime
            with self._lock:
                runtime = self._runtimes.get(key)
            if runtime is None:
                model = self._network(key, inputs, progress).to_model()
                nbytes = self.bytes_per_reference(InputShape(*inputs.shape[1:3]))
                runtime = OpenVinoRuntime(model, precision=INT8, threads=self._threads, nbytes=nbytes)
                with self._lock:
                    self._runtimes[key] = runtime
            return runtime

    def _key(self, images: ModelInputs) -> str:
        """The key of a network: backbone, weights, recipe, and images in their order."""
        spec, preprocessing = self.spec, self.spec.preprocessing_of(InputShape.square())  # the shape follows below
        made_of = f"{INT8}/{RECIPE}/{spec.name}/{preprocessing}/{self.weights_digest}/{self._recipe.float_layers}"
        digest = hashlib.sha256((made_of + str(images.shape)).encode())
        digest.update(np.ascontiguousarray(images).data)
        return digest.hexdigest()

    def _network(self, key: str, images: ModelInputs, progress: Progress) -> NetworkFile:
        """The network from the cache, or a newly quantized one, written to the cache."""
        cached = None if self._cache is None else self._cache.read(key)
        if cached is not None:
            return cached
        with self._quantization:
            _log.info("Quantizing the backbone on the images of a reference")
            network = NetworkFile.from_model(self._quantize(images, progress))
        if self._cache is not None:
            with self._lock:
                in_use = {*self._runtimes, *self._key_locks}
            self._cache.write(key, network, in_use=in_use)
        return network
