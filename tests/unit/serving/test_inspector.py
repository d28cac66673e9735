"""LocalInspector: it computes the requested outputs and no others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.detector import FakeDetector
from fakes.gray import gray_png, open_reference, reference
from fakes.images import encoded, noise
from fakes.inspectors import local_inspector
from fakes.waiting import settle, until
from numpy.typing import NDArray
from PIL import Image

from patchserve_server import imaging
from patchserve_server.domain.errors import ImageTooLargeError, ResponseTooLargeError, UndecodableImageError
from patchserve_server.domain.events import NOBODY, Events, ImageInspected, InspectionFailed, Origin
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, OutputOptions, OverlayFormat, RawScores
from patchserve_server.domain.ports import ScoredPart, Scorer, ScorerInputs
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.work_events import ImageProcessed, Stage, Wait
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.local_inspector import LocalInspector

FLOW = FlowKey("a")
FUNCTIONS = ("prepare_canvas", "find_regions", "heat_levels", "render_overlay", "encode_overlay")


class Heard(Events):
    """Remembers what happened."""

    def __init__(self) -> None:
        self.inspections: list[ImageInspected] = []
        self.failures: list[InspectionFailed] = []
        self.processed_images: list[ImageProcessed] = []

    def processed(self, event: ImageProcessed) -> None:
        self.processed_images.append(event)

    def inspected(self, event: ImageInspected) -> None:
        self.inspections.append(event)

    def failed(self, event: InspectionFailed) -> None:
        self.failures.append(event)

    def refused(self) -> None:
        raise AssertionError("An inspector refuses nothing.")

    def reference_changed(self, reference_id: ReferenceId, reference: ReferenceInfo | None) -> None:
        raise AssertionError("An inspector changes nothing.")


@contextlib.asynccontextmanager
async def inspector(
    outputs: Path | None = None,
    max_overlay_bytes: int = 2**26,
    events: Events = NOBODY,
    detector: FakeDetector | None = None,
) -> AsyncIterator[LocalInspector]:
    with local_inspector(
        detector or FakeDetector(),
        events,
        outputs=outputs,
        max_overlay_bytes=max_overlay_bytes,
        scale=HeatmapScale.RELATIVE,
    ) as made:
        yield made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions of `imaging` that have been called to make outputs from an anomaly map."""
    names: list[str] = []

    def record(name: str) -> None:
        function = getattr(imaging, name)

        def call(*args: object, **kwargs: object) -> object:
            names.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(imaging.overlay if name == "heat_levels" else imaging, name, call)

    for name in FUNCTIONS:
        record(name)
    return names


OVERLAY = ["prepare_canvas", "render_overlay", "heat_levels", "encode_overlay"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (OutputOptions(max_regions=0), []),
        (OutputOptions(max_regions=0, score_map=True), []),
        (OutputOptions(max_regions=0, overlay_format=OverlayFormat.JPEG, overlay_max_side_px=16), []),
        (OutputOptions(), ["find_regions"]),
        (OutputOptions(max_regions=0, overlay=True), OVERLAY),
        (OutputOptions(overlay=True), [OVERLAY[0], "find_regions", *OVERLAY[1:]]),
    ],
)
async def test_only_requested_outputs_are_computed(
    calls: list[str], options: OutputOptions, expected: list[str]
) -> None:
    async with inspector() as local:
        inspection = await local.inspect(open_reference(reference(level=100)), SentImage(gray_png(160)), options, FLOW)
    assert calls == expected
    assert (inspection.overlay is None) == (not options.overlay)
    assert (inspection.score_map is None) == (not options.score_map)
    assert bool(inspection.regions) == bool(options.max_regions)


@pytest.mark.parametrize("format_", OverlayFormat)
async def test_the_saved_overlay_is_the_one_in_the_response(tmp_path: Path, format_: OverlayFormat) -> None:
    options = OutputOptions(overlay=True, overlay_format=format_, overlay_max_side_px=16)
    async with inspector(tmp_path) as local:
        inspection = await local.inspect(
            open_reference(reference(level=100)), SentImage(gray_png(160, (32, 20))), options, FLOW
        )
    assert inspection.overlay is not None
    assert (inspection.overlay.format, inspection.overlay.size_px) == (format_, (16, 10))
    assert inspection.source_size_px == (32, 20)
    (saved,) = sorted(tmp_path.glob("*.overlay.*"))  # noqa: ASYNC240 - nothing else runs
    assert saved.suffix == {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}[format_.value]
    assert saved.read_bytes() == inspection.overlay.data


async def test_the_operator_gets_an_overlay_if_the_caller_requested_none(tmp_path: Path) -> None:
    async with inspector(tmp_path) as local:
        image = SentImage(gray_png(160, (2000, 20)))
        inspection = await local.inspect(
            open_reference(reference(level=100)), image, OutputOptions(max_regions=0), FLOW, name="belt/7.png"
        )
    assert inspection.overlay is None
    (original,) = tmp_path.glob("*-anomalous-7.png.original.png")  # noqa: ASYNC240
    assert original.read_bytes() == image.content
    (overlay,) = tmp_path.glob("*-anomalous-7.png.overlay.jpg")  # noqa: ASYNC240
    assert Image.open(overlay).size == (1280, 13)


@pytest.mark.parametrize(("own", "requested"), [(0.5, None), (1.0, 0.5), (2.0, 0.5)])
async def test_thresholds_are_those_of_the_request_or_else_of_the_reference(
    tmp_path: Path, own: float, requested: float | None
) -> None:
    calibrated = reference(level=100)
    tuned = open_reference(replace(calibrated, model=replace(calibrated.model, sensitivity=own)))
    calibrated_jpeg = OutputOptions(
        overlay=True, heatmap_scale=HeatmapScale.CALIBRATED, overlay_format=OverlayFormat.JPEG, sensitivity=0.5
    )
    image = SentImage(gray_png(125))
    async with inspector() as local:
        expected = await local.inspect(open_reference(calibrated), image, calibrated_jpeg, FLOW)
    async with inspector(tmp_path) as local:
        inspection = await local.inspect(tuned, image, OutputOptions(sensitivity=requested), FLOW)
    assert inspection.verdict == expected.verdict
    assert not inspection.verdict.anomaly.is_anomalous, "at the calibrated thresholds it is"
    assert inspection.regions == expected.regions
    assert expected.overlay is not None
    (overlay,) = tmp_path.glob("*.overlay.jpg")  # noqa: ASYNC240
    assert overlay.read_bytes() == expected.overlay.data


async def test_an_overlay_too_large_for_its_format_fails_before_inference() -> None:
    detector, image = FakeDetector(), SentImage(gray_png(160, (16_384, 2)))
    async with inspector(detector=detector) as local:
        with pytest.raises(ImageTooLargeError, match="16384 x 2 pixels; WEBP allows at most 16,383"):
            await local.inspect(
                open_reference(reference()),
                image,
                OutputOptions(overlay=True, overlay_format=OverlayFormat.WEBP),
                FLOW,
            )
        assert detector.batches == []
        smaller = OutputOptions(overlay=True, overlay_format=OverlayFormat.WEBP, overlay_max_side_px=640)
        overlay = (await local.inspect(open_reference(reference()), image, smaller, FLOW)).overlay
        await local.inspect(open_reference(reference()), image, OutputOptions(overlay_format=OverlayFormat.WEBP), FLOW)
    assert overlay is not None
    assert overlay.size_px == (640, 1)


async def test_an_overlay_that_is_surely_too_large_to_send_fails_before_inference() -> None:
    detector, image = FakeDetector(), SentImage(encoded(noise(400), "PNG"))
    options = OutputOptions(overlay=True, heatmap_scale=HeatmapScale.CALIBRATED)
    async with inspector(max_overlay_bytes=2**16, detector=detector) as local:
        with pytest.raises(ResponseTooLargeError, match="65,536 bytes"):
            await local.inspect(open_reference(reference()), image, options, FLOW)
        assert detector.batches == []


async def test_an_inspection_is_told_with_the_image_as_it_was_sent() -> None:
    heard, image = Heard(), SentImage(gray_png(160, (2000, 20)), 4095)
    async with inspector(events=heard) as local:
        opened = open_reference(reference(level=100))
        inspection = await local.inspect(opened, image, OutputOptions(max_regions=0), FLOW, name="7")
    (event,) = heard.inspections
    assert (event.origin, event.inspection) == (Origin("a", "7", is_frame=False), inspection)
    assert event.image is image
    assert event.calibration == opened.info.calibration
    assert event.draw_overlay(image).size_px == (1280, 13), "although its caller requested none"
    assert Image.open(io.BytesIO(event.draw_thumbnail())).size == (208, 2)


async def test_what_is_told_draws_an_image_without_keeping_its_batch() -> None:
    heard, batch = Heard(), np.zeros((3, 8, 8, 3), np.uint8)
    alive = weakref.ref(batch)
    async with inspector(events=heard) as local:
        await local.inspect(open_reference(reference(level=100)), SentImage(RawFrame(batch[1])), OutputOptions(), FLOW)
    draw, own = heard.inspections.pop().draw_overlay, np.array(batch[1])
    del batch
    gc.collect()
    assert alive() is None
    assert draw(SentImage(RawFrame(own))).size_px == (8, 8)


class MapsOfABatch(FakeDetector):
    """Its maps are views into those of a whole batch, as they come from a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[weakref.ref[NDArray[np.float32]]] = []

    def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
        for part in super().score_batch(batch):
            assert not isinstance(part.scores, Exception)
            maps = np.stack([raw.anomaly_map for raw in part.scores])
            self.alive.append(weakref.ref(maps))
            yield replace(
                part, scores=[RawScores(raw.image_score, one) for raw, one in zip(part.scores, maps, strict=True)]
            )


async def test_what_is_told_does_not_keep_the_maps_of_its_batch() -> None:
    heard, detector = Heard(), MapsOfABatch()
    async with inspector(events=heard, detector=detector) as local:
        options = OutputOptions(score_map=True)
        inspection = await local.inspect(open_reference(reference(level=100)), SentImage(gray_png(90)), options, FLOW)
    event = heard.inspections.pop()
    await settle()  # the batch itself has ended
    gc.collect()
    assert [maps() is None for maps in detector.alive] == [True]
    assert inspection.score_map is not None
    assert event.map_bytes == inspection.score_map.nbytes
    assert event.draw_thumbnail()


async def test_a_frame_is_told_as_a_frame_and_a_failure_with_its_reason() -> None:
    heard, flow = Heard(), FlowKey.of_stream("a")
    async with inspector(events=heard) as local:
        with pytest.raises(UndecodableImageError):
            await local.inspect(open_reference(reference()), SentImage(b"no image"), OutputOptions(), flow, name="f1")
    (failure,) = heard.failures
    assert failure.origin == Origin("a", "f1", is_frame=True)
    assert (failure.reference_id, failure.reason) == ("default", "UNDECODABLE_IMAGE")
    assert heard.inspections == []


async def test_a_bug_is_told_without_its_details() -> None:
    heard, detector = Heard(), FakeDetector()
    detector.failure = ValueError("secret")
    async with inspector(events=heard, detector=detector) as local:
        with pytest.raises(ValueError, match="secret"):
            await local.inspect(open_reference(reference()), SentImage(gray_png(100)), OutputOptions(), FLOW)
    assert [failure.reason for failure in heard.failures] == ["INTERNAL"]
    assert "secret" not in heard.failures[0].message


async def test_an_image_that_is_inspected_again_is_neither_told_nor_saved(tmp_path: Path) -> None:
    heard = Heard()
    async with inspector(tmp_path, events=heard) as local:
        opened = open_reference(reference(level=100))
        inspection = await local.inspect_again(opened, SentImage(gray_png(160)), OutputOptions(), FLOW)
    assert inspection.verdict.anomaly.is_anomalous
    assert (heard.inspections, heard.failures, list(tmp_path.iterdir())) == ([], [], [])  # noqa: ASYNC240


async def test_an_answer_is_made_where_the_inspection_was_made() -> None:
    """Not on the event loop: it may be large."""
    async with inspector() as local:
        inspection, thread = await local.answer(
            open_reference(reference(level=100)),
            SentImage(gray_png(160)),
            OutputOptions(),
            FLOW,
            answer=lambda inspection: (inspection, threading.get_ident()),
        )
    assert inspection.verdict.anomaly.is_anomalous
    assert thread != threading.get_ident()


async def test_the_steps_of_an_image_follow_each_other_and_are_those_of_its_timing() -> None:
    heard = Heard()
    async with inspector(events=heard) as local:
        opened, image = open_reference(reference(level=100)), SentImage(gray_png(160))
        inspection = await local.inspect(opened, image, OutputOptions(overlay=True), FLOW)
    [event] = heard.processed_images
    assert [step.what for step in event.steps] == [
        Wait.TURN,
        Wait.THREAD,
        Stage.DECODE,
        Wait.BATCH,
        Stage.EMBED,
        Stage.SEARCH,
        Wait.THREAD,
        Stage.RENDER,
        Stage.ENCODE,
    ]
    waited_s = sum(step.duration_s for step in event.steps if isinstance(step.what, Wait))
    assert inspection.timing.queue_ms == pytest.approx(1000 * waited_s)
    assert (event.reference_id, event.is_frame) == ("default", False)


async def test_what_an_image_has_waited_is_told_also_if_its_caller_leaves() -> None:
    heard, detector = Heard(), FakeDetector()
    detector.gate.clear()
    async with inspector(events=heard, detector=detector) as local:
        opened, image = open_reference(reference()), SentImage(gray_png(100))
        waiting = asyncio.create_task(local.inspect(opened, image, OutputOptions(), FlowKey.of_stream("a")))
        await until(lambda: len(detector.batches) == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        detector.gate.set()
    [event] = heard.processed_images
    assert [step.what for step in event.steps][-1] is Wait.BATCH
    assert event.is_frame
    assert (heard.inspections, heard.failures) == ([], [])
