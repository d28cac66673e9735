"""The parts of an inspection that work on pixels, in milliseconds, and enlarging by Pillow beside ours.

PYTHONPATH=server:protos/python taskset -c 0 .venv/bin/python benchmarks/bench_overlay.py
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from timing import best_ms

from patchserve_server import imaging
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale, OverlayFormat
from patchserve_server.imaging.enlarging import resize_lanczos

_PARCEL = Path(__file__).resolve().parents[1] / "samples" / "parcels" / "test" / "crushed_corner" / "000.jpg"
_SIZE_PX = (1001, 712)
_REPEATS = 40


def main() -> None:
    imaging.configure_libraries()
    file = io.BytesIO()
    Image.open(_PARCEL).convert("RGB").resize(_SIZE_PX, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    limits, shape = imaging.ImageLimits(), InputShape.square()
    image = imaging.decode_image(file.getvalue(), limits)
    patch_scores = np.random.default_rng(0).gamma(4, 0.25, (28, 28)).astype(np.float32)
    anomaly_map = np.asarray(cv2.resize(patch_scores, shape.size_px), np.float32)
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: imaging.decode_image(file.getvalue(), limits),
        "model input": lambda: imaging.to_model_input(image, shape),
    }
    for scale in HeatmapScale:
        stages |= _overlay_stages(scale, image, anomaly_map)
    small = image.resize(shape.size_px)
    pixels = np.asarray(small)
    stages["enlarge, Pillow"] = lambda: np.asarray(small.resize(_SIZE_PX, Image.Resampling.LANCZOS))
    stages["enlarge, ours"] = lambda: resize_lanczos(pixels, _SIZE_PX)
    for name, time_ms in best_ms(_REPEATS, stages).items():
        print(f"{name:24} {time_ms:6.2f}")


def _overlay_stages(
    scale: HeatmapScale, image: imaging.PilImage, anomaly_map: np.ndarray
) -> dict[str, Callable[[], object]]:
    def canvas() -> imaging.Canvas:
        return imaging.prepare_canvas(image, scale, map_shape=InputShape.square(), size_px=_SIZE_PX)

    ready = canvas()

    def draw() -> np.ndarray:
        return imaging.render_overlay(ready, anomaly_map, pixel_threshold=2.0, regions=())

    overlay = draw()
    return {
        f"canvas, {scale.value}": canvas,
        f"draw, {scale.value}": draw,
        f"PNG, {scale.value}": lambda: imaging.encode_overlay(overlay, OverlayFormat.PNG),
    }


if __name__ == "__main__":
    main()
