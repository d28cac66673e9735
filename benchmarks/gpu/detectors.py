"""The detector of a part: that of the device, or on the CPU one with the same engine."""

from __future__ import annotations

from pathlib import Path

from gpu.options import Options
from gpu.trial import trial_detector
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector
from patchserve_server.imaging.on_device import open_codec


def open_detector(options: Options, backbone: str, *, decodes: bool = False) -> PatchCoreDetector:
    """A detector that is warm. `decodes`: it takes JPEG files too."""
    weights: Path = options.weights(backbone)
    if options.is_trial:
        detector = trial_detector(backbone, weights, options.precision, decodes=decodes)
    else:
        detector = create_detector(
            backbone=backbone,
            weights=weights,
            device=options.device,
            precision=options.precision,
            codec=open_codec if decodes else None,
        )
    detector.warm_up()
    return detector
