"""Quantizes a backbone with NNCF on the images of one reference."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import openvino
import rich
from numpy.typing import NDArray

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.engine.backbone.int8.synthetic_defects import synthetic_defects
from patchserve_server.engine.backbone.runtime import FP32, INT8

RECIPE = 1  # increase it if a change of code gives other networks for the same images

_VIEWS = 32  # docs/adr/0009: twice as many do not bring vectors closer to fp32
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_NOT_COMPUTED = ("Constant", "Parameter", "Result")


class Quantizer:
    """Makes int8 networks from one fp32 model. NNCF uses all cores and global state: no concurrent calls."""

    def __init__(self, model: openvino.Model, *, float_layers: str) -> None:
        """Import NNCF.

        Args:
            model: in fp32, (1, H, W, 3) uint8 -> feature maps.
            float_layers: a regular expression; convolutions with a matching name stay in fp32.

        Raises:
            StartupError: NNCF is not installed.
        """
        self._nncf = _import_nncf()
        self._model = model
        self._float_operations = _float_operations(model, float_layers)

    def quantize(self, images: ModelInputs, progress: Progress) -> openvino.Model:
        """The model in int8, with the value ranges of these images (N, H, W, 3) uint8 and synthetic defects on them."""
        nncf, views, done = self._nncf, synthetic_defects(images, _VIEWS), 0

        def count_view(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
            nonlocal done
            done = min(done + 1, len(views))
            progress(LoadStage.QUANTIZE, done, len(views))
            return view

        progress(LoadStage.QUANTIZE, 0, len(views))
        model = self._model.clone()
        model.reshape([1, *images.shape[1:]])
        with _no_progress_bars():
            return nncf.quantize(
                model,
                nncf.Dataset([view[None] for view in views], count_view),
                subset_size=len(views),
                preset=nncf.QuantizationPreset.MIXED,
                ignored_scope=nncf.IgnoredScope(names=self._float_operations),
                # Weights have 7 bits. With 8, sums of two products overflow on processors without VNNI: this error is
                # larger than the gain of the bit, and vectors would depend on the processor.
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            )


def _float_operations(model: openvino.Model, float_layers: str) -> list[str]:
    """The names of all operations that stay in fp32: all except convolutions, and the convolutions that match."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in _NOT_COMPUTED
        and (operation.get_type_name() not in _CONVOLUTIONS or re.search(float_layers, operation.get_friendly_name()))
    ]


def _import_nncf() -> ModuleType:
    """Import NNCF, and let it log as the server does.

    Raises:
        StartupError: NNCF is not installed.
    """
    logger_class = logging.getLoggerClass()
    try:
        import nncf  # noqa: PLC0415 - an optional package for int8
    except ImportError as error:
        raise StartupError(
            f"Precision {INT8} needs NNCF, which is not installed: use --precision {FP32}, or install it with "
            '`pip install ".[server,int8]"` in a checkout of patchserve.'
        ) from error
    finally:
        logging.setLoggerClass(logger_class)  # NNCF changes it
    # NNCF logs to the standard output. Its warnings belong in the server's log.
    logger = logging.getLogger("nncf")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    module: ModuleType = nncf
    return module


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Disable the progress bars that NNCF draws on the standard output."""
    console = rich.get_console()
    quiet, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = quiet
