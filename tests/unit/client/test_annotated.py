"""Pictures for people: an overlay below a header with the verdict and the color scale."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from fakes.responses import inspected, png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve.v1 import inference_pb2
from patchserve_client import AnomalyScore, HeatmapScale, InferenceResult
from patchserve_client._annotated import annotated
from patchserve_client._results import inference_result
from patchserve_client._verdicts import ratio_text, verdict_text

BOTH_SCALES = pytest.mark.parametrize("scale", list(HeatmapScale))
RED, GREEN = (200, 48, 58), (44, 138, 86)


def score_of(raw: float, threshold: float = 10.0) -> AnomalyScore:
    return AnomalyScore(raw / (raw + threshold), raw, threshold, raw > threshold, 0.0)


def result_of(size_px: tuple[int, int] = (640, 480), color: str = "red") -> InferenceResult:
    response = inspected("belt", png(color, size_px), inference_pb2.OutputOptions(overlay=True))
    assert isinstance(response, inference_pb2.InferResponse)
    return inference_result(response)


@BOTH_SCALES
@pytest.mark.parametrize("size_px", [(640, 480), (480, 640), (2048, 1500), (4000, 120), (360, 2000)])
def test_the_overlay_is_unchanged_below_the_header(scale: HeatmapScale, size_px: tuple[int, int]) -> None:
    result = result_of(size_px)
    picture = annotated(result, scale)
    width_px, height_px = size_px
    assert picture.width == width_px
    assert height_px < picture.height <= height_px + max(42, 0.3 * height_px)
    below = picture.crop((0, picture.height - height_px, width_px, picture.height))
    assert result.overlay is not None
    assert below.tobytes() == result.overlay.convert("RGB").tobytes()


@pytest.mark.parametrize("size_px", [(1, 1), (60, 300), (64, 48), (359, 20)])
def test_a_narrow_overlay_is_enlarged_until_the_header_is_readable(size_px: tuple[int, int]) -> None:
    picture = annotated(result_of(size_px), HeatmapScale.CALIBRATED)
    assert picture.width == 360
    assert picture.height == pytest.approx(42 + 360 * size_px[1] / size_px[0], abs=1)


@pytest.mark.parametrize("size_px", [(1, 2000), (3, 3000), (16, 300), (200, 2000)])
def test_a_very_narrow_overlay_has_margins_and_stays_small(size_px: tuple[int, int]) -> None:
    picture = annotated(result_of(size_px), HeatmapScale.CALIBRATED)
    assert picture.width == 360
    assert picture.height <= 42 + max(2048, size_px[1])
    width_px = round(size_px[0] * max(1.0, 2048 / size_px[1]))
    row = [picture.getpixel((x_px, picture.height // 2)) for x_px in range(360)]
    assert row.count((21, 25, 30)) == 360 - max(1, width_px)


@pytest.mark.parametrize(("color", "header"), [("red", RED), ("green", GREEN)])
def test_the_header_has_the_color_of_the_verdict(color: str, header: tuple[int, int, int]) -> None:
    assert annotated(result_of(color=color), HeatmapScale.CALIBRATED).getpixel((2, 2)) == header


def test_a_result_without_an_overlay_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="overlay=True"):
        annotated(dataclasses.replace(result_of(), encoded_overlay=None), HeatmapScale.CALIBRATED)


def test_a_jpeg_overlay_is_drawn_too() -> None:
    result = result_of()
    file = io.BytesIO()
    Image.new("RGB", (640, 480), "orange").save(file, "JPEG")
    assert result.encoded_overlay is not None
    overlay = dataclasses.replace(result.encoded_overlay, data=file.getvalue(), media_type="image/jpeg")
    drawn = annotated(dataclasses.replace(result, encoded_overlay=overlay), HeatmapScale.CALIBRATED)
    assert np.ptp(np.asarray(drawn.crop((0, 100, 640, 500))), axis=(0, 1)).max() <= 3


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0.001, 100), st.floats(0.1, 10))
def test_the_text_of_a_ratio_is_on_the_side_of_the_threshold_where_the_verdict_is(
    raw: float, threshold: float, turn: float
) -> None:
    anomaly = score_of(raw, threshold * turn)
    shown = float(ratio_text(anomaly, turn).removesuffix(" x"))
    assert shown > turn - 1e-6 if anomaly.is_anomalous else shown < turn + 1e-6
    assert shown == pytest.approx(raw / threshold, abs=0.011)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (0, "intact 0.00 x"),
        (8.2, "intact 0.82 x"),
        (9.99, "intact 1.00 x"),
        (10, "intact 1.00 x"),
        (10.0001, "anomalous 1.01 x"),
        (13.8, "anomalous 1.38 x"),
        (12345, "anomalous 1234.50 x"),
    ],
)
def test_a_verdict_in_words(raw: float, text: str) -> None:
    assert str(score_of(raw)) == verdict_text(score_of(raw)) == text


def test_a_verdict_at_another_threshold_keeps_the_unit() -> None:
    assert verdict_text(score_of(9.7, threshold=9.4), threshold=0.94) == "anomalous 0.97 x, threshold 0.94 x"
    assert verdict_text(score_of(9.4, threshold=9.4), threshold=0.94) == "intact 0.94 x, threshold 0.94 x"


def test_a_threshold_of_zero_has_a_ratio() -> None:
    assert score_of(0, 1).ratio == AnomalyScore(0, 0, 0, False, 0).ratio == 0
    assert verdict_text(AnomalyScore(1, 3, 0, True, 0)) == "anomalous over 999 x"


def test_a_result_as_text_is_its_verdict() -> None:
    assert str(result_of()) == "anomalous 3.00 x, 1 region"
    assert str(result_of(color="green")) == "intact 0.50 x"
