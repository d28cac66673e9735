"""How much the anomaly maps of two runtimes of one backbone differ."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.input_options import DEFAULT_SIDE_PX, InputShape
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch


def map_difference(spec: BackboneSpec, exact: Runtime, other: Runtime) -> float:
    """The largest difference between two runtimes' maps of a synthetic image, as a share of the exact map's peak."""
    images = _synthetic_images(DEFAULT_SIDE_PX)
    (expected,), (actual,) = (_anomaly_maps(spec, runtime, images[0], images[1:]) for runtime in (exact, other))
    return _difference(expected, actual)


def input_difference(spec: BackboneSpec, runtime: Runtime, exact: ModelInputs, other: ModelInputs) -> float:
    """The same between the maps of two readings of the same images (N, H, W, 3). The first image is the reference."""
    count = len(exact) - 1
    maps = _anomaly_maps(spec, runtime, exact[0], np.concatenate((exact[1:], other[1:])))
    return max(map(_difference, maps[:count], maps[count:]))


def _difference(expected: AnomalyMap, actual: AnomalyMap) -> float:
    return float(np.abs(actual - expected).max() / expected.max())


@torch.inference_mode()
def _anomaly_maps(
    spec: BackboneSpec, runtime: Runtime, reference: ModelInputs, images: ModelInputs
) -> list[AnomalyMap]:
    """The maps of images (N, H, W, 3), compared with the reference (H, W, 3)."""
    shape = InputShape(*reference.shape[:2])
    pipeline = Pipeline.build(spec, runtime, shape, ReferenceOptions(), ParallelSearch())
    index = BankIndex.build(pipeline.embed(reference[None])[0])
    return [pipeline.score(pipeline.embed(image[None]), index)[0].anomaly_map for image in images]


def _synthetic_images(size_px: int) -> ModelInputs:
    """Two images (2, H, W, 3) uint8 of one color pattern with different noise. The second has a dark spot."""
    rng = np.random.default_rng(0)
    pattern = cv2.resize(rng.uniform(60, 200, (6, 8, 3)), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    images = pattern + rng.normal(0, 12, (2, size_px, size_px, 1))
    spot = slice(size_px // 3, size_px // 2)
    images[1, spot, spot] = 30
    return images.clip(0, 255).astype(np.uint8)
