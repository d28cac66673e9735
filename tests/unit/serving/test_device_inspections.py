"""LocalInspector with a device that decodes and draws: scores do not depend on the output, and no caller sees more."""

from __future__ import annotations

import asyncio
import io
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import card, encoded
from fakes.inspectors import FLOW, REFERENCE, Bench, inspecting
from fakes.jpegs import gray_jpeg
from fakes.waiting import until
from PIL import Image

from patchserve_server import imaging
from patchserve_server.domain.errors import (
    EngineLostError,
    ImageTooLargeError,
    ResponseTooLargeError,
    UndecodableImageError,
)
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, OutputOptions, OverlayFormat
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.work_events import Stage, Wait
from patchserve_server.imaging.encode import MAX_OVERLAY_SIDE_PX
from patchserve_server.serving.drawing import BatchedDrawing

CARD = SentImage(encoded(card()))
JPEG_OVERLAY = OutputOptions(overlay=True, overlay_format=OverlayFormat.JPEG)


def opened(decode: str = "device", **options: Any) -> AbstractAsyncContextManager[Bench]:
    return inspecting(FakeDetector(decode=decode), **options)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("patchserve_server.serving.device_fallbacks._TELL_EVERY_S", math.inf)
    async with opened() as made:
        yield made


async def test_the_score_of_a_jpeg_is_the_devices_whatever_overlay_is_requested(bench: Bench) -> None:
    requested = [
        OutputOptions(),
        OutputOptions(score_map=True, max_regions=0),
        *(
            OutputOptions(overlay=True, overlay_format=format_, heatmap_scale=scale, overlay_max_side_px=side_px)
            for format_ in OverlayFormat
            for scale in HeatmapScale
            for side_px in (0, 64)
        ),
    ]
    inspections = [await bench.inspect(CARD, options) for options in requested]
    verdicts = {inspection.verdict for inspection in inspections}
    assert len(verdicts) == 1
    async with opened("cpu") as other:
        assert (await other.inspect(CARD)).verdict not in verdicts, "it was decoded by the device every time"
    for options, inspection in zip(requested, inspections, strict=True):
        assert (inspection.overlay is not None) == options.overlay
        if inspection.overlay is not None:
            image = Image.open(io.BytesIO(inspection.overlay.data))
            assert image.format == options.overlay_format.name
            assert inspection.overlay.size_px == ((64, 48) if options.overlay_max_side_px else (320, 240))


async def test_only_jpeg_overlays_of_jpegs_are_drawn_by_the_device(bench: Bench) -> None:
    for options in (
        JPEG_OVERLAY,
        OutputOptions(overlay=True),
        replace(JPEG_OVERLAY, overlay_format=OverlayFormat.WEBP),
    ):
        await bench.inspect(CARD, options)
        await bench.inspect(SentImage(gray_png(160)), options)
    assert bench.detector.drawing_batches == [1]


async def test_a_drawing_has_what_the_cpu_would_draw(bench: Bench) -> None:
    image = SentImage(encoded(card(scratched=True)))
    for scale in HeatmapScale:
        inspection = await bench.inspect(image, replace(JPEG_OVERLAY, heatmap_scale=scale, score_map=True))
        drawing = bench.detector.drawings.pop()
        assert inspection.score_map is not None
        levels = imaging.heat_levels(inspection.score_map, scale, inspection.verdict.pixel_threshold)
        np.testing.assert_array_equal(drawing.heat_levels, levels)
        assert (drawing.scale, drawing.size_px) == (scale, (320, 240))
        polygons = tuple(region.polygon for region in inspection.regions)
        assert polygons
        assert drawing.outlines == (polygons if scale is HeatmapScale.CALIBRATED else ())


@pytest.mark.parametrize("options", [OutputOptions(), OutputOptions(overlay=True), JPEG_OVERLAY])
async def test_what_the_device_cannot_decode_is_decoded_here(
    bench: Bench, options: OutputOptions, caplog: pytest.LogCaptureFixture
) -> None:
    bench.detector.is_unknown = lambda _: True
    async with opened("cpu") as other:
        expected = await other.inspect(CARD, options)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            inspection = await bench.inspect(CARD, options)
            assert (inspection.verdict, inspection.regions) == (expected.verdict, expected.regions)
            assert (inspection.overlay is None) == (expected.overlay is None)
            if inspection.overlay is not None and expected.overlay is not None:
                assert inspection.overlay.data == expected.overlay.data
    (line,) = [record for record in caplog.records if "device" in record.message]
    assert line.message == "The device could not decode or draw 1 JPEG, so the CPU did: made up"
    assert bench.heard.fallbacks == 3 * [Stage.DECODE]


async def test_what_the_device_cannot_draw_is_drawn_here_with_the_same_score(bench: Bench) -> None:
    plain = await bench.inspect(CARD)
    bench.detector.is_undrawable = lambda _: True
    inspection = await bench.inspect(CARD, replace(JPEG_OVERLAY, overlay_max_side_px=64))
    assert inspection.verdict == plain.verdict
    assert inspection.overlay is not None
    assert Image.open(io.BytesIO(inspection.overlay.data)).size == inspection.overlay.size_px == (64, 48)
    assert bench.heard.fallbacks == [Stage.RENDER]


async def test_an_overlay_is_drawn_here_if_the_device_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(*_: object) -> bytes:
        raise EngineLostError

    monkeypatch.setattr(BatchedDrawing, "draw", lose)
    inspection = await bench.inspect(CARD, JPEG_OVERLAY)
    assert inspection.overlay is not None
    assert Image.open(io.BytesIO(inspection.overlay.data)).size == card().size


async def test_a_file_that_the_device_cannot_decode_hurts_no_other_image(bench: Bench) -> None:
    levels = (100, 110, 120, 130)
    bench.detector.is_unknown = lambda file: file.size_px == (30, 20)
    images = [SentImage(gray_jpeg(level, (30 if level == 110 else 24, 20))) for level in levels]
    inspections = await asyncio.gather(*(bench.inspect(image, JPEG_OVERLAY) for image in images))
    scores = [round(inspection.verdict.anomaly.raw_score) for inspection in inspections]
    assert scores == [level - 100 for level in levels]


async def test_images_of_other_kinds_are_inspected_as_ever(bench: Bench) -> None:
    pixels = np.full((20, 24, 3), 160, np.uint8)
    images = [SentImage(gray_png(160)), SentImage(RawFrame(pixels)), SentImage(encoded(Image.new("CMYK", (24, 20))))]
    async with opened("cpu") as other:
        for image in images:
            one, two = await bench.inspect(image, JPEG_OVERLAY), await other.inspect(image, JPEG_OVERLAY)
            assert one.verdict == two.verdict
            assert one.overlay is not None
            assert two.overlay is not None
            assert one.overlay.data == two.overlay.data


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_turned_images_are_upright(bench: Bench, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    inspection = await bench.inspect(SentImage(encoded(card(), exif=exif)), JPEG_OVERLAY)
    size_px = (320, 240) if orientation < 5 else (240, 320)
    assert inspection.source_size_px == size_px
    assert inspection.overlay is not None
    assert inspection.overlay.size_px == size_px
    (event,) = bench.heard.inspections
    thumbnail = Image.open(io.BytesIO(event.draw_thumbnail()))
    assert thumbnail.size == ((208, 156) if orientation < 5 else (156, 208))


async def test_limits_of_overlays_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(max_bytes=1000) as bench:
        with pytest.raises(ResponseTooLargeError, match="1,000 bytes"):
            await bench.inspect(CARD, JPEG_OVERLAY)
        batches = len(bench.detector.batches)
        monkeypatch.setitem(MAX_OVERLAY_SIDE_PX, OverlayFormat.JPEG, 300)
        with pytest.raises(ImageTooLargeError, match="at most 300 per side"):
            await bench.inspect(CARD, JPEG_OVERLAY)
        assert len(bench.detector.batches) == batches, "it fails before inference"


async def test_a_damaged_file_is_refused_before_it_reaches_the_device(bench: Bench) -> None:
    assert isinstance(CARD.content, bytes)
    with pytest.raises(UndecodableImageError, match="truncated"):
        await bench.inspect(SentImage(CARD.content[:-500]))
    assert bench.detector.batches == []


async def test_the_steps_of_an_image_have_what_the_device_did(bench: Bench) -> None:
    inspection = await bench.inspect(CARD, JPEG_OVERLAY)
    (event,) = bench.heard.images
    assert [step.what for step in event.steps] == [
        Wait.TURN,
        Wait.THREAD,
        Stage.DECODE,
        Wait.BATCH,
        Stage.DECODE,
        Stage.EMBED,
        Stage.SEARCH,
        Wait.THREAD,
        Stage.RENDER,
        Wait.THREAD,
        Stage.RENDER,
        Stage.ENCODE,
    ]
    decoded_s = [step.duration_s for step in event.steps if step.what is Stage.DECODE]
    waited_s = sum(step.duration_s for step in event.steps if isinstance(step.what, Wait))
    assert decoded_s[1] == 0.002, "by the device"
    assert inspection.timing.decode_ms == pytest.approx(1000 * sum(decoded_s))
    assert inspection.timing.queue_ms == pytest.approx(1000 * waited_s)
    assert inspection.timing.render_ms > 0


async def test_the_wait_for_a_drawing_is_part_of_rendering(bench: Bench) -> None:
    bench.detector.drawing_gate.clear()
    waiting = asyncio.create_task(bench.inspect(CARD, JPEG_OVERLAY))
    await until(lambda: bench.detector.drawing_batches == [1])
    await asyncio.sleep(0.05)
    bench.detector.drawing_gate.set()
    timing = (await waiting).timing
    assert 50 <= timing.render_ms <= timing.total_ms


async def test_thumbnails_and_saved_overlays_are_drawn_of_files_as_well(tmp_path: Path) -> None:
    async with opened(outputs=tmp_path) as bench:
        await bench.inspect(CARD, OutputOptions(sensitivity=0.1))
        (event,) = bench.heard.inspections
        thumbnail = Image.open(io.BytesIO(event.draw_thumbnail())).convert("RGB")
        overlay = event.draw_overlay(CARD)
    small = card().resize(thumbnail.size)
    assert event.inspection.verdict.anomaly.is_anomalous is False
    assert np.abs(np.asarray(thumbnail, np.int16) - np.asarray(small, np.int16)).mean() < 8
    assert overlay.size_px == (320, 240)
    (saved,) = tmp_path.glob("*.original.jpg")  # noqa: ASYNC240 - nothing else runs
    assert saved.read_bytes() == CARD.content


async def test_an_image_is_inspected_again_by_the_device(bench: Bench) -> None:
    first = await bench.inspect(CARD)
    again = await bench.inspector.inspect_again(REFERENCE, CARD, JPEG_OVERLAY, FLOW)
    assert again.verdict == first.verdict
    assert len(bench.detector.drawings) == 1


async def test_a_caller_that_leaves_while_its_overlay_is_drawn_gives_its_turn_back(bench: Bench) -> None:
    bench.detector.drawing_gate.clear()
    leaving = [asyncio.create_task(bench.inspect(CARD, JPEG_OVERLAY)) for _ in range(20)]
    await until(lambda: len(bench.detector.drawing_batches) == 1)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    bench.detector.drawing_gate.set()
    await asyncio.gather(*(bench.inspect(CARD, JPEG_OVERLAY) for _ in range(20)))


async def test_large_files_are_not_in_progress_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchserve_server.serving.local_inspector._BYTES_PER_TURN", CARD.nbytes // 5)  # of 8 turns
    bench.detector.gate.clear()
    waiting = [asyncio.create_task(bench.inspect(CARD)) for _ in range(3)]
    await until(lambda: len(bench.detector.batches) == 1)
    for _ in range(20):
        await asyncio.sleep(0.005)
    bench.detector.gate.set()
    await asyncio.gather(*waiting)
    assert bench.detector.batches == [1, 1, 1]


async def test_an_overlay_that_only_the_device_makes_too_large_to_send_is_drawn_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device encodes all of the color, the CPU a quarter of it."""
    async with opened(max_bytes=50_000) as bench:
        monkeypatch.setattr(bench.detector, "draw", lambda drawings: [bytes(50_001) for _ in drawings])
        overlay = (await bench.inspect(CARD, JPEG_OVERLAY)).overlay
    assert overlay is not None
    assert Image.open(io.BytesIO(overlay.data)).format == "JPEG"
