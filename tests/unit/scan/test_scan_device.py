"""A scan on a device that decodes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from fakes.detector import FakeDetector
from fakes.gray import gray_png, reference
from fakes.images import card, encoded
from fakes.scans import FakeProgress, rows_in, scan_options

from patchserve_server.config import Settings
from patchserve_server.domain.inspection import OverlayFormat
from patchserve_server.scan.engine import Work
from patchserve_server.scan.local_run import run_here
from patchserve_server.scan.options import Overlays
from patchserve_server.scan.results import open_results
from patchserve_server.scan.scan import scan
from patchserve_server.scan.sources import open_source


@pytest.mark.parametrize("overlays", Overlays)
def test_its_jpegs_are_scored_and_drawn_by_the_device(tmp_path: Path, overlays: Overlays) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes(encoded(card(scratched=True)))
    (images / "b.png").write_bytes(gray_png(160))
    (images / "c.jpg").write_bytes(encoded(card())[:-300])
    detector, found = FakeDetector(decode="device"), reference(level=100)
    with open_results(str(tmp_path / "results")) as results:
        source = open_source(str(images), results.name)
        options = scan_options(
            source=source.name,
            reference_id=found.reference_id,
            revision=found.revision,
            overlays=overlays,
            overlay_format=OverlayFormat.JPEG,
        )
        work = Work(Settings(), options, results.name, lambda _: detector)
        progress = FakeProgress()
        run = partial(run_here, work, found, results, progress=progress)
        scan(source, found, options, results, run=run, progress=progress)
        rows = {Path(row["path"]).name: row for row in rows_in(results)}
    assert detector.files == 1, "the PNG is decoded by the CPU, and the damaged file by nobody"
    assert len(detector.drawings) == (overlays is Overlays.ALL)
    assert [rows[name]["error_reason"] for name in ("a.jpg", "b.png", "c.jpg")] == [None, None, "UNDECODABLE_IMAGE"]
    assert (rows["a.jpg"]["overlay"] is not None) == (overlays is not Overlays.NONE)
