"""Outputs: what is saved of an inspection, and that a slow or full disk neither fails nor holds up a call."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from fakes.events import CALIBRATION
from fakes.gray import gray_png
from PIL import Image

from patchserve_server.domain.events import ImageInspected, Origin
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import (
    AnomalyScore,
    DamageScore,
    EncodedOverlay,
    Inspection,
    OverlayFormat,
    Verdict,
)
from patchserve_server.domain.raw_frame import PIXEL_FORMATS, RawFrame
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, Revision
from patchserve_server.serving import outputs as module
from patchserve_server.serving.output_folder import FolderLimits, OutputFolder
from patchserve_server.serving.outputs import Outputs

DRAWN = EncodedOverlay(b"drawn", OverlayFormat.JPEG, (1, 1))


@pytest.fixture
def writing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def saver(path: Path, writing: ThreadPoolExecutor, *, only_anomalous: bool = False) -> Outputs:
    folder = OutputFolder(path, FolderLimits(1000, timedelta(days=1), 10**9))
    return Outputs(folder, writing, only_anomalous=only_anomalous)


def inspected(
    *,
    anomalous: bool = True,
    image: SentImage | None = None,
    overlay: EncodedOverlay | None = None,
    name: str = "a.png",
) -> ImageInspected:
    anomaly = AnomalyScore(0.7 if anomalous else 0.3, 7.0, 3.0, anomalous, 1.5)
    inspection = Inspection(
        reference_id=DEFAULT_REFERENCE_ID,
        reference_revision=Revision("0" * 64),
        verdict=Verdict(DamageScore(1.0, anomaly_detected=False), anomaly, pixel_threshold=1.0),
        source_size_px=(8, 8),
        overlay=overlay,
    )
    return ImageInspected(
        Origin("peer", name, is_frame=False),
        SentImage(gray_png(100)) if image is None else image,
        inspection,
        CALIBRATION,
        0,
        lambda _: DRAWN,
        lambda: b"",
    )


def files(path: Path) -> dict[str, bytes]:
    """Contents by the ends of the names."""
    return {file.name.split("-", 2)[2]: file.read_bytes() for file in path.iterdir()}


def file_count(path: Path) -> int:
    return len(list(path.iterdir()))


async def finished(writing: ThreadPoolExecutor) -> None:
    await asyncio.wrap_future(writing.submit(lambda: None))
    await asyncio.sleep(0)  # callbacks of what was written before


async def test_the_original_the_overlay_and_the_result_are_saved(tmp_path: Path, writing: ThreadPoolExecutor) -> None:
    requested = EncodedOverlay(b"requested", OverlayFormat.PNG, (1, 1))
    await saver(tmp_path, writing).save(inspected(overlay=requested))
    await finished(writing)
    found = files(tmp_path)
    result = json.loads(found.pop("default-anomalous-a.png.json"))
    assert found == {
        "default-anomalous-a.png.original.png": gray_png(100),
        "default-anomalous-a.png.overlay.png": b"requested",
    }
    assert result["name"] == "a.png"
    assert result["reference_id"] == "default"
    assert result["verdict"]["anomaly"]["score"] == 0.7
    assert result["source_size_px"] == [8, 8]
    assert "overlay" not in result


async def test_an_overlay_is_drawn_if_the_caller_requested_none(tmp_path: Path, writing: ThreadPoolExecutor) -> None:
    await saver(tmp_path, writing).save(inspected(anomalous=False))
    await finished(writing)
    assert files(tmp_path)["default-intact-a.png.overlay.jpg"] == b"drawn"


async def test_pixels_are_saved_as_a_png(tmp_path: Path, writing: ThreadPoolExecutor) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    await saver(tmp_path, writing).save(inspected(image=SentImage(RawFrame(pixels)), name=""))
    await finished(writing)
    saved = Image.open(io.BytesIO(files(tmp_path)["default-anomalous.original.png"]))
    assert np.array_equal(np.asarray(saved), pixels)


async def test_a_frame_of_a_camera_is_saved_as_it_was_inspected(tmp_path: Path, writing: ThreadPoolExecutor) -> None:
    frame = RawFrame(np.full((4, 6), 2000, np.uint16), PIXEL_FORMATS["bayerrg16"])
    await saver(tmp_path, writing).save(inspected(image=SentImage(frame, 4000), name=""))
    await finished(writing)
    saved = Image.open(io.BytesIO(files(tmp_path)["default-anomalous.original.png"]))
    assert (np.asarray(saved) == 128).all()


async def test_only_anomalous_inspections_are_kept_if_that_is_set(tmp_path: Path, writing: ThreadPoolExecutor) -> None:
    some = saver(tmp_path, writing, only_anomalous=True)
    await some.save(inspected(anomalous=False))
    await some.save(inspected(anomalous=True))
    await finished(writing)
    assert [name for name in files(tmp_path) if name.endswith(".json")] == ["default-anomalous-a.png.json"]


async def test_a_full_disk_is_told_once_a_minute_and_fails_no_call(
    tmp_path: Path, writing: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    some = saver(tmp_path, writing)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for _ in range(20):
            await some.save(inspected())
        await finished(writing)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "--save-outputs: 1 inspection not saved: No space left on device"
    await some.save(inspected())
    await finished(writing)
    assert len(files(tmp_path)) == 3


async def test_a_disk_that_hangs_holds_a_call_up_for_a_bounded_time_and_in_bounded_memory(
    tmp_path: Path, writing: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_S", 0.05)
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 3 * len(gray_png(100)))
    some = saver(tmp_path, writing)
    hanging = threading.Event()
    writing.submit(hanging.wait)
    for _ in range(5):
        await asyncio.wait_for(some.save(inspected()), 10)
    assert "1 inspection not saved: the folder is written too slowly" in caplog.text
    hanging.set()
    await finished(writing)
    assert file_count(tmp_path) == 9
    await some.save(inspected())
    await finished(writing)
    assert file_count(tmp_path) == 12


async def test_a_call_that_waited_is_saved_when_there_is_room_again(
    tmp_path: Path, writing: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    monkeypatch.setattr(module, "MAX_WAIT_S", 30)
    some = saver(tmp_path, writing)
    hanging = threading.Event()
    writing.submit(hanging.wait)
    saves = [asyncio.create_task(some.save(inspected())) for _ in range(4)]
    await asyncio.sleep(0)
    hanging.set()
    await asyncio.gather(*saves)
    await finished(writing)
    assert file_count(tmp_path) == 12


async def test_other_limits_hold_for_what_is_there_and_for_what_comes(
    tmp_path: Path, writing: ThreadPoolExecutor
) -> None:
    outputs = saver(tmp_path, writing)
    for _ in range(4):
        await outputs.save(inspected(anomalous=False))
    outputs.change(FolderLimits(2, timedelta(days=1), 10**9), only_anomalous=True)
    await outputs.save(inspected(anomalous=False))
    await outputs.save(inspected(anomalous=True))
    names = await asyncio.to_thread(writing.submit(lambda: [path.name for path in tmp_path.glob("*.json")]).result)
    assert sorted("anomalous" in name for name in names) == [False, True]
