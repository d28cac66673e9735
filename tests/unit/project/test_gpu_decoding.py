"""benchmarks/gpu/decoding.py: what it says of two decoders, with a detector whose scores are easily foretold."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes.detector import FakeDetector
from gpu.decoders import Cpu, StandIn
from gpu.decoding import Images, auroc, differences, main
from PIL import Image

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape


class Brighter:
    """A decoder whose pixels are brighter by some levels."""

    name = "brighter"

    def __init__(self, levels: int) -> None:
        self._levels = levels

    def decode(self, files: Sequence[bytes], shape: InputShape) -> ModelInputs:
        return (Cpu().decode(files, shape) + self._levels).astype(np.uint8)


def jpeg(level: int, orientation: int = 1) -> bytes:
    """Gray on the left, the level in red on the right."""
    pixels = np.full((48, 64, 3), 100, np.uint8)
    pixels[:, 33:] = (level, 100, 100)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(encoded := io.BytesIO(), "JPEG", quality=95, exif=exif)
    return encoded.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "train/good/0.jpg": jpeg(100),
        "test/good/0.jpg": jpeg(110),
        "test/good/1.jpeg": jpeg(120),
        "test/hole/deep/0.JPG": jpeg(230),
        "test/good/none.png": b"",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_images_are_labeled_by_their_folders(folder: Path) -> None:
    images = Images.of(folder)
    assert (len(images.reference), images.is_damaged.tolist()) == (1, [False, False, True])
    with pytest.raises(FileNotFoundError, match="needs JPEGs in train/good and in test/KIND"):
        Images.of(folder / "test")


def test_equal_decoders_differ_in_nothing(folder: Path) -> None:
    found = differences(Images.of(folder), FakeDetector(), Cpu())
    assert (found.levels.max(), found.scores.max(), found.maps, found.changed_verdicts) == (0, 0, 0, 0)
    assert found.aurocs == (1.0, 1.0)


def test_brighter_pixels_raise_scores_and_change_a_verdict(folder: Path) -> None:
    found = differences(Images.of(folder), FakeDetector(), Brighter(19))  # the fake's threshold is at 20 levels
    assert (found.levels.min(), found.levels.max()) == (19, 19)
    assert found.scores.min() > 0.3
    assert found.changed_verdicts == 2
    assert "| 19.00 / 19 |" in found.row()
    assert "| 2 of 3 | 1.0000 / 1.0000 |" in found.row()


@pytest.mark.parametrize("fast_dct", [False, True])
def test_the_stand_in_differs_where_chroma_changes_and_turns_images_upright(fast_dct: bool) -> None:
    files = [jpeg(200), jpeg(200, orientation=6)]
    shape = InputShape.square(16)
    expected, found = (decoder.decode(files, shape).astype(int) for decoder in (Cpu(), StandIn(fast_dct=fast_dct)))
    assert 0 < np.abs(expected - found).max() < 40
    assert np.abs(expected - found).mean() < 3


def test_the_auroc_counts_pairs_in_order() -> None:
    damaged = np.array([True, True, False, False])
    assert auroc(damaged, np.array([3.0, 2.0, 1.0, 0.0])) == 1
    assert auroc(damaged, np.array([0.0, 1.0, 2.0, 3.0])) == 0
    assert auroc(damaged, np.array([1.0, 1.0, 1.0, 0.0])) == 0.75


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nosuch"], "nosuch needs JPEGs in train/good and in test/KIND"),
        (["FOLDER", "--device", "cuda:77"], "cuda:77"),
        (["FOLDER", "--device", "cpu", "--backbone", "nosuch"], "nosuch"),
    ],
)
def test_wrong_arguments_are_told_in_one_line_and_without_a_table(
    flags: list[str],
    words: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["decoding", *(str(folder) if flag == "FOLDER" else flag for flag in flags)])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr()
    assert words in told.err.splitlines()[-1]
    assert told.out == ""
