"""Results in a folder and in a bucket, and small parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from patchserve_server.scan import plan
from patchserve_server.scan.results import Results, open_results


@pytest.fixture(params=["folder", "bucket"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Results]:
    place = str(tmp_path / "results") if request.param == "folder" else f"memory://{tmp_path.name.replace('_', '-')}"
    with ExitStack() as stack:
        yield stack.enter_context(open_results(place))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 4 images, and segments of the plan of 8."""
    monkeypatch.setattr(plan, "SEGMENT_IMAGES", 8)
    monkeypatch.setattr(plan, "_SMALLEST_PART", 4)
