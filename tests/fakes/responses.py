"""Images, and the responses of the fake server to them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from fakes.faults import Fault, bad_image
from patchserve.v1 import inference_pb2, reference_pb2

LEAVE_ONE_OUT = reference_pb2.CALIBRATION_METHOD_LEAVE_ONE_OUT
AUGMENTED_VIEWS = reference_pb2.CALIBRATION_METHOD_AUGMENTED_VIEWS


def png(color: str = "green", size: tuple[int, int] = (32, 24)) -> bytes:
    """An encoded image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def decoded_image(image: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(image)).convert("RGB")
    except OSError:
        return None


def inspected(reference_id: str, image: bytes, output: Any) -> inference_pb2.InferResponse | Fault:
    """The response for an image. Red images are anomalous, all others intact."""
    decoded = decoded_image(image)
    if decoded is None:
        return bad_image()
    red, green, _ = np.asarray(decoded).mean(axis=(0, 1))
    raw = 30.0 if red > green else 5.0
    anomaly = inference_pb2.AnomalyScore(
        score=raw / (raw + 10), raw_score=raw, raw_threshold=10, is_anomalous=raw > 10, anomalous_area_percentage=12.5
    )
    box = inference_pb2.BoundingBox(x_px=2, y_px=3, width_px=8, height_px=5)
    corners = [inference_pb2.Point(x_px=x, y_px=y) for x, y in ((2, 3), (9, 3), (9, 7), (2, 7))]
    region = inference_pb2.Region(bounding_box=box, polygon=corners, area_px=40, area_percentage=5.2, peak_score=0.8)
    response = inference_pb2.InferResponse(
        reference_id=reference_id,
        reference_revision="abc",
        damage=inference_pb2.DamageScore(damage_percentage=7.25, anomaly_detected=True, threshold=0.5),
        anomaly=anomaly,
        regions=[region] if raw > 10 else [],
        timing=inference_pb2.Timing(total_ms=4.5),
    )
    if output.overlay:
        _draw(response, decoded, output)
    if output.score_map:
        values = np.arange(6, dtype="<f4")
        width, height = decoded.size
        response.score_map.CopyFrom(
            inference_pb2.ScoreMap(
                height=2, width=3, values=values.tobytes(), source_width_px=width, source_height_px=height
            )
        )
    return response


def _draw(response: inference_pb2.InferResponse, image: Image.Image, output: Any) -> None:
    kind = {inference_pb2.OVERLAY_FORMAT_JPEG: "JPEG", inference_pb2.OVERLAY_FORMAT_WEBP: "WEBP"}.get(
        output.overlay_format, "PNG"
    )
    overlay, file = Image.new("RGB", image.size, "orange"), io.BytesIO()
    if output.overlay_max_side_px:
        overlay.thumbnail((output.overlay_max_side_px, output.overlay_max_side_px))
    overlay.save(file, kind)
    response.overlay.media_type = f"image/{kind.lower()}"
    response.overlay.width_px, response.overlay.height_px = overlay.size
    response.overlay.source_width_px, response.overlay.source_height_px = image.size
    if kind == "PNG":
        response.overlay_png = file.getvalue()
    else:
        response.overlay.image = file.getvalue()


def reference(
    reference_id: str, image_count: int, revision: str = "abc123", profile: int = 0
) -> reference_pb2.Reference:
    calibration = reference_pb2.Calibration(
        method=LEAVE_ONE_OUT if image_count > 2 else AUGMENTED_VIEWS,
        image_threshold=10.5,
        patch_threshold=8.25,
        normal_scores=reference_pb2.ScoreSpread(count=image_count, min=4, mean=5, stddev=0.5, max=6),
    )
    message = reference_pb2.Reference(
        reference_id=reference_id,
        revision=revision,
        image_count=image_count,
        patch_count=784 * image_count,
        feature_dim=1536,
        profile=profile or reference_pb2.SCORING_PROFILE_NOTEBOOK,  # type: ignore[arg-type]
        calibration=calibration,
        threshold=10.5,
        sensitivity=1,
        backbone="fake",
        precision="fp32",
        coreset=reference_pb2.CoresetOptions(ratio=0.1),
        input_width_px=224,
        input_height_px=224,
        bank_bytes=5 * 2**20,
    )
    message.create_time.FromJsonString("2025-01-02T03:04:05Z")
    message.update_time.FromJsonString("2025-01-02T03:04:06Z")
    return message
