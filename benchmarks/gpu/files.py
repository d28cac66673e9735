"""JPEG files on the device, without a server: decoding, drawing, and detecting from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch

from gpu.detectors import open_detector
from gpu.engine import Engine
from gpu.options import Options
from gpu.part import run_cases, tell
from gpu.rates import runs_per_s
from gpu.stages import kernels
from gpu.table import Case, Measured
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.imaging.device_file import device_file
from patchserve_server.imaging.limits import ImageLimits
from patchserve_server.imaging.on_device.codec import TorchCodec

_LIMITS = ImageLimits(2**24, 2**26)
_SQUARE = InputShape.square()

Prepared: TypeAlias = "Callable[[Files], Callable[[], object]]"
"""Something to do again and again."""


@dataclass(frozen=True)
class Files:
    """A detector that decodes, and as many files as a batch has."""

    engine: Engine
    codec: TorchCodec
    sent: list[bytes]

    @property
    def files(self) -> list[JpegFile]:
        found = [device_file(SentImage(data), _LIMITS) for data in self.sent]
        return [file for file in found if file is not None]

    @property
    def device(self) -> torch.device:
        return self.engine.opened(self.engine.options.scale.rows[0]).pipeline.runtime.device


def run(options: Options, ends_s: float) -> None:
    detector = open_detector(options, options.backbone, decodes=True)
    engine = Engine(options, detector, 0.0)
    tell(found={"precision": detector.info.precision})
    paths = sorted(options.images.glob("*.jpg"))
    sent = [paths[number % len(paths)].read_bytes() for number in range(options.scale.batch)]
    files = Files(engine, TorchCodec(engine.opened(options.scale.rows[0]).pipeline.runtime.device), sent)
    run_cases(cases(options), files, seconds=options.seconds, ends_s=ends_s)


def cases(options: Options) -> list[Case[Files]]:
    batch = options.scale.batch
    return [
        Case(f"JPEG files decoded and scaled on the device, batches of {batch}", partial(_rate, prepared=_decoding)),
        Case(f"JPEG overlays drawn on the device, batches of {batch}", partial(_rate, prepared=_drawing)),
        Case(f"detect from JPEG files, batches of {batch}", _detect),
        Case("JPEG files checked by one core", _check),
        Case(f"device busy, {batch} JPEG files decoded", partial(_busy, what="decoding", prepared=_decoding)),
        Case(f"device busy, {batch} JPEG overlays drawn", partial(_busy, what="drawing", prepared=_drawing)),
    ]


def _decoding(files: Files) -> Callable[[], object]:
    ready = files.files

    def run() -> None:
        _require_none_failed(files.codec.decode(ready, _SQUARE))
        synchronize(files.device)

    return run


def _drawing(files: Files) -> Callable[[], object]:
    levels = np.linspace(0, 255, _SQUARE.pixels).astype(np.uint8).reshape(_SQUARE.sides_px)
    drawings = [OverlayDrawing(file, levels, HeatmapScale.RELATIVE, file.size_px) for file in files.files]
    return lambda: _require_none_failed(files.codec.draw(drawings))


def _rate(files: Files, seconds: float, prepared: Prepared) -> Measured:
    rate = runs_per_s({"run": prepared(files)}, seconds)["run"]
    return Measured(len(files.sent) * rate)


def _busy(files: Files, seconds: float, what: str, prepared: Prepared) -> Measured:
    busy, table = kernels(files.device, prepared(files), seconds)
    tell(note=f"What the device does, {what}, {len(files.sent)} files:\n\n{table}")
    return Measured(100 * busy, "% of the time", more="see below")


def _detect(files: Files, seconds: float) -> Measured:
    batch = len(files.sent)
    scorer, ready = files.engine.opened(files.engine.options.scale.rows[0]), files.files
    runs = {
        "from model inputs": files.engine.detect([scorer], batch),
        "from files": lambda: list(files.engine.detector.score_batch([(scorer, ready)])),
    }
    found = runs_per_s(runs, seconds)
    ratio, rate = found["from files"] / found["from model inputs"], batch * found["from files"]
    return Measured(rate, ratio=ratio, to=f"{batch * found['from model inputs']:,.0f}/s, from model inputs")


def _check(files: Files, seconds: float) -> Measured:
    """What the CPU still does for each image."""
    return _rate(files, seconds, lambda files: lambda: files.files)


def _require_none_failed(results: object) -> None:
    failed = [one for one in results if isinstance(one, DeviceCodecError)]  # type: ignore[attr-defined]
    if failed:
        raise failed[0]
