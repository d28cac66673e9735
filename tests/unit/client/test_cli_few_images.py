"""What a load says about references with few images."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.responses import png, reference
from fakes.terminal import Run

from patchserve.v1 import reference_pb2
from patchserve_client import ReferenceInfo
from patchserve_client._results import reference_info
from patchserve_client.cli._few_images import few_images_note


def loaded(image_count: int, *, views: bool = False) -> ReferenceInfo:
    message = reference("belt", image_count)
    if views:
        message.calibration.method = reference_pb2.CALIBRATION_METHOD_AUGMENTED_VIEWS
    return reference_info(message)


@pytest.mark.parametrize(
    ("image_count", "begins"), [(1, "1 image cannot"), (2, "2 images cannot"), (5, "Fewer than 3 of")]
)
def test_a_threshold_from_altered_views_is_told(image_count: int, begins: str) -> None:
    note = few_images_note(loaded(image_count, views=True))
    assert note is not None
    assert note.startswith(f"Note: {begins}")
    assert "nearly every item" in note
    assert all(lever in note for lever in ("at least", "--append", "--profile", "--search-radius"))


def test_a_threshold_from_few_images_is_called_an_estimate() -> None:
    note = few_images_note(loaded(3))
    assert note is not None
    assert note.startswith("Note: With 3 images, the threshold is a rough estimate")
    assert "patchserve reference tune belt" in note


def test_enough_images_need_no_note(run: Run, tmp_path: Path) -> None:
    assert few_images_note(loaded(8)) is None
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(png(size=(8 + number, 8)))
    code, _, stderr = run("reference", "load", tmp_path)
    assert (code, stderr) == (0, "")
    (tmp_path / "0.png").unlink()
    code, stdout, stderr = run("reference", "load", tmp_path, "--output=json")
    assert (code, stdout[0]) == (0, "{")
    assert stderr.startswith("Note: With 7 images")
