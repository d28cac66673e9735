"""int8: a network of each reference's own, quantized by NNCF on its images."""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from weakref import WeakValueDictionary

import numpy as np
import openvino
import rich
from numpy.typing import NDArray

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.int8.network_cache import NetworkCache, NetworkFile
from patchserve_server.engine.backbone.int8.synthetic_defects import synthetic_defects
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime
from patchserve_server.engine.backbone.runtime import FP32, INT8

_RECIPE = 1  # another number wherever the same images would give another network
_VIEWS = 32  # docs/adr/0009: with twice as many no vector is nearer to fp32's
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_WITHOUT_WORK = ("Constant", "Parameter", "Result")

_log = logging.getLogger(__name__)


class Quantizer:
    """Makes what runs a reference, or finds it: in use already, or in the cache."""

    def __init__(
        self, model: openvino.Model, *, identity: str, float_layers: str, threads: int, cache: NetworkCache | None
    ) -> None:
        """Needs NNCF.

        Args:
            model: in fp32, (1, S, S, 3) uint8 in.
            identity: tells this model from others with other layers or weights.
            float_layers: a pattern; convolutions with such a name stay in fp32.
            threads: as OpenVinoRuntime has it.
            cache: keeps networks over a restart; None makes each again.

        Raises:
            StartupError: NNCF is not installed.
        """
        self._nncf = _imported_nncf()
        self._model, self._float_layers, self._threads, self._cache = model, float_layers, threads, cache
        self._made_of = f"{INT8}/{_RECIPE}/{identity}/{float_layers}".encode()
        self._in_use: WeakValueDictionary[str, OpenVinoRuntime] = WeakValueDictionary()
        self._turn = threading.Lock()  # NNCF takes all cores: one at a time

    def for_reference(self, images: ModelInputs, progress: Progress) -> OpenVinoRuntime:
        """The network quantized on these images: the same images in the same order give the same one."""
        key = self._key(images)
        with self._turn:
            runtime = self._in_use.get(key)
            if runtime is None:
                model = self._file(key, images, progress).model()
                runtime = self._in_use[key] = OpenVinoRuntime(model, precision=INT8, threads=self._threads)
            return runtime

    def _key(self, images: ModelInputs) -> str:
        digest = hashlib.sha256(self._made_of + str(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
        return digest.hexdigest()

    def _file(self, key: str, images: ModelInputs, progress: Progress) -> NetworkFile:
        file = None if self._cache is None else self._cache.read(key)
        if file is None:
            _log.info("Quantizing the backbone on a reference's images")
            file = NetworkFile.of(self._quantized(synthetic_defects(images, _VIEWS), progress))
            if self._cache is not None:
                self._cache.write(key, file, in_use=set(self._in_use))
        return file

    def _quantized(self, views: ModelInputs, progress: Progress) -> openvino.Model:
        nncf, done = self._nncf, 0

        def shown(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
            nonlocal done
            done = min(done + 1, len(views))
            progress(LoadStage.QUANTIZE, done, len(views))
            return view

        progress(LoadStage.QUANTIZE, 0, len(views))
        with _no_bars():
            return nncf.quantize(
                self._model.clone(),
                nncf.Dataset([view[None] for view in views], shown),
                subset_size=len(views),
                preset=nncf.QuantizationPreset.MIXED,
                ignored_scope=nncf.IgnoredScope(names=_left_in_float(self._model, self._float_layers)),
                # Weights of 7 bits. With 8, processors without VNNI overflow in sums of two products: a greater error
                # than the bit saves, and vectors that depend on the processor.
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            )


def _left_in_float(model: openvino.Model, float_layers: str) -> list[str]:
    """The names of all operations but the convolutions that become int8."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in _WITHOUT_WORK
        and (operation.get_type_name() not in _CONVOLUTIONS or re.search(float_layers, operation.get_friendly_name()))
    ]


def _imported_nncf() -> ModuleType:
    """NNCF, made to log as the server does.

    Raises:
        StartupError: it is not installed.
    """
    logger_class = logging.getLoggerClass()
    try:
        nncf = importlib.import_module("nncf")
    except ImportError as error:
        raise StartupError(
            f"Precision {INT8} needs NNCF, which is not installed: install patchserve[int8], or use --precision {FP32}."
        ) from error
    finally:
        logging.setLoggerClass(logger_class)
    # It logs to the standard output; what it warns of belongs into the server's log.
    logger = logging.getLogger("nncf")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    return nncf


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the progress bars that NNCF draws on the standard output."""
    console = rich.get_console()
    quiet, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = quiet
