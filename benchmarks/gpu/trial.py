"""The engine of a GPU on the CPU: it shows that the program works, and says nothing of how fast a GPU is.

As a program it is `patchserve-server` with this engine, in all its processes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.processes import child, keeper
from patchserve_server.config import Settings
from patchserve_server.domain.ports import Detector
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime, in_precision
from patchserve_server.engine.backbone.graphs import EagerGraphs
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.transfers import DeviceTransfers
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.imaging.on_device import torchcodec_calls
from patchserve_server.imaging.on_device.codec import TorchCodec

PROGRAM = ("-m", "gpu.trial")
_CHILD = "--child"
_CPU = torch.device("cpu")
_SIZES = (1, 2, 4)  # of passes


def trial_detector(backbone: str, weights: Path | None, precision: str, *, decodes: bool = False) -> PatchCoreDetector:
    in_torch = load_backbone(backbone, weights, _CPU)
    shared = SharedBackbone(in_torch.identity, trial_runtime(in_torch.runtime.module, precision))
    if not decodes:
        return PatchCoreDetector(shared)
    torchcodec_calls.import_torchcodec()
    return PatchCoreDetector(shared, codec=TorchCodec(_CPU))


def trial_runtime(module: torch.nn.Module, precision: str) -> DeviceRuntime:
    name = "fp32" if precision == "auto" else precision
    return DeviceRuntime(in_precision(module, name), name, EagerGraphs(), DeviceTransfers(_CPU), sizes=_SIZES)


def _open_detector(settings: Settings) -> Detector:
    decodes = settings.decode == "device"
    detector = trial_detector(settings.backbone, settings.weights, settings.precision, decodes=decodes)
    detector.warm_up()
    return detector


def main() -> None:
    composition.open_detector = _open_detector
    keeper.COMMAND = (sys.executable, *PROGRAM, _CHILD)
    if sys.argv[1:2] == [_CHILD]:
        child.main()
    else:
        from patchserve_server.cli import main as serve  # noqa: PLC0415 - a child is no command line

        serve()


if __name__ == "__main__":
    main()
