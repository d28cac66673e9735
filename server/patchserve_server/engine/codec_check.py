"""How much it changes that a device decodes, measured when the server starts."""

from __future__ import annotations

import logging

import numpy as np

from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.map_tolerance import TOLERANCE
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.codec import Codec
from patchserve_server.engine.map_difference import input_difference

_log = logging.getLogger(__name__)


def check_decoding(codec: Codec, backbone: SharedBackbone[TorchRuntime]) -> None:
    """Logs how far the device's pixels of sample files are from those of the CPU, and the anomaly maps of both.

    A warning, if the maps differ by more than what a fast precision may change.
    """
    exact, decoded = codec.samples(InputShape.square())
    levels = np.abs(exact.astype(np.int16) - decoded)
    difference = input_difference(backbone.spec, backbone.runtime, exact, decoded)
    _log.log(
        logging.INFO if difference <= TOLERANCE else logging.WARNING,  # also if it is not a number
        "Decoding on %s: pixels of sample JPEGs differ by at most %d levels (mean %.2f) from the CPU's, anomaly maps "
        "by %.1f %% of their peak",
        backbone.device,
        int(levels.max()),
        float(levels.mean()),
        100 * difference,
    )
