"""A server with front processes on this machine, and callers in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from served import load_reference, server

from gpu.engine import Row
from gpu.inputs import PARCELS, sent_images

GOALS_PER_S = {"scores": 1500, "jpeg": 800, "png": 500}
CALLERS, PROCESSES = 16, 4
WARM_UP_S = 3.0


def table(weights: Path, folder: Path, *, device: str, precision: str, seconds: float, fronts: int) -> list[Row]:
    """What callers get, by kind of output."""
    images = folder / "sent"
    images.mkdir(exist_ok=True)
    for number, image in enumerate(sent_images()):
        (images / f"{number}.jpg").write_bytes(image)
    flags = (
        *("--backbone", "wide_resnet50_2", "--weights", str(weights), "--device", device, "--precision", precision),
        *("--fronts", str(fronts), "--max-pending-images", "512", "--max-queue-delay-ms", "2"),
    )
    rows = []
    with server(*flags) as served:
        load_reference(served.address, sorted((PARCELS / "train" / "good").iterdir())[:1])
        for output, goal in GOALS_PER_S.items():
            _answers(served.address, WARM_UP_S, output, images)
            rate = _answers(served.address, seconds, output, images) / seconds
            rows.append(Row(f"served with {fronts} fronts, {output}", rate, rate / goal, f"{goal}/s", 1.0))
    return rows


def _answers(address: str, seconds: float, output: str, images: Path) -> int:
    command = [sys.executable, "-m", "gpu.load", address, str(seconds), str(CALLERS), output, str(images)]
    callers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(PROCESSES)]
    return sum(int(caller.communicate()[0] or 0) for caller in callers)
