"""What decoding on the device does to pixels and scores: the table of decoding.py, for the parcels."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout

import torch

from gpu.decoders import OnDevice, StandIn
from gpu.decoding import Images, print_table
from gpu.detectors import open_detector
from gpu.inputs import PARCELS
from gpu.options import Options
from gpu.part import run_cases, tell
from gpu.table import Case, Measured
from patchserve_server.engine.detector import PatchCoreDetector


def cases(_: Options) -> list[Case[PatchCoreDetector]]:
    return [Case("effect of decoding on the device on scores", _effect)]


def run(options: Options, ends_s: float) -> None:
    detector = open_detector(options, options.backbone)
    tell(found={"precision": detector.info.precision})
    run_cases(cases(options), detector, seconds=options.seconds, ends_s=ends_s)


def _effect(detector: PatchCoreDetector, _: float) -> Measured:
    started_s, text = time.perf_counter(), io.StringIO()
    with redirect_stdout(text):
        device = torch.device(detector.info.device)
        other = StandIn(fast_dct=False) if device.type == "cpu" else OnDevice(device)
        print_table([Images.of(PARCELS)], detector, other)
    title = "What decoding on the device changes. Weights are random here, so only the levels say something:"
    tell(note=f"{title}\n\n{text.getvalue().strip()}")
    return Measured(time.perf_counter() - started_s, "s", more="see below")
