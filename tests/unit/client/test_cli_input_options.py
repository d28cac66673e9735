"""The options of `patchserve reference load` that say how large the backbone sees images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.responses import png, reference
from fakes.terminal import Run, rows

from patchserve.v1.reference_pb2 import ASPECT_RATIO_KEEP, ASPECT_RATIO_SQUEEZE, InputOptions


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "a.png"
    file.write_bytes(png())
    return file


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--input", 320], InputOptions(longer_side_px=320)),
        (["--input", "auto"], InputOptions(auto=True)),
        (["--aspect", "keep"], InputOptions(aspect=ASPECT_RATIO_KEEP)),
        (["--input", 640, "--aspect", "squeeze"], InputOptions(longer_side_px=640, aspect=ASPECT_RATIO_SQUEEZE)),
        (["--tile-px", 448], InputOptions(tile_px=448)),
        (["--tile-px", 448, "--tile-overlap", 0], InputOptions(tile_px=448, tile_overlap=0)),
    ],
)
def test_the_options_are_sent(
    run: Run, fake: FakeServer, image: Path, options: list[object], expected: InputOptions
) -> None:
    assert run("reference", "load", image, *options)[0] == 0
    (request,) = fake.requests["LoadReference"]
    assert request.input == expected


def test_options_that_are_not_given_are_not_sent(run: Run, fake: FakeServer, image: Path) -> None:
    assert run("reference", "load", image)[0] == 0
    assert not fake.requests["LoadReference"][0].HasField("input")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "large"], "--input must be a number of pixels, such as 320, or auto, not 'large'."),
        (["--input", "0"], "--input must be a number of pixels, such as 320, or auto, not '0'."),
        (["--input", "32.5"], "--input must be a number of pixels, such as 320, or auto, not '32.5'."),
        (["--aspect", "stretch"], "'--aspect': 'stretch' is not one of 'squeeze', 'keep'."),
        (["--tile-px", 448, "--tile-overlap", 0.75], "'--tile-overlap': "),  # versions of Click say it differently
        (["--tile-overlap", 0.1], "--tile-overlap needs --tile-px: set both."),
    ],
)
def test_a_bad_value_is_rejected_with_what_is_allowed(
    run: Run, fake: FakeServer, image: Path, options: list[object], message: str
) -> None:
    code, stdout, stderr = run("reference", "load", image, *options)
    assert (code, stdout) == (2, "")
    assert message in stderr
    assert not fake.requests["LoadReference"]


def test_a_load_says_the_unit_of_the_size_and_of_the_tiles(run: Run, image: Path) -> None:
    assert ", input 224 x 224 px, tiles of 448 px, " in run("reference", "load", image, "--tile-px", 448)[1]


def test_list_and_show_say_how_large_the_backbone_sees_images(run: Run, fake: FakeServer) -> None:
    fake.references["belt"] = squeezed = reference("belt", 3)
    squeezed.input_width_px = squeezed.input_height_px = 320
    fake.references["board"] = tiled = reference("board", 3)
    tiled.input.CopyFrom(InputOptions(tile_px=448, tile_overlap=0.25, aspect=ASPECT_RATIO_KEEP))
    tiled.input_width_px, tiled.input_height_px = 4192, 3040
    table = run("reference", "list")[1]
    assert "320 x 320 " in table
    assert "4192 x 3040, tiles of 448 " in table
    assert [row[0] for row in rows(table)] == ["id", "belt", "board"]
    facts = dict(line.split(maxsplit=1) for line in run("reference", "show", "board")[1].splitlines())
    names = ("input_px", "aspect", "tile_px", "tile_overlap", "input_width_px", "input_height_px")
    assert [facts[name] for name in names] == ["-", "keep", "448", "0.25", "4192", "3040"]
    document = json.loads(run("reference", "show", "board", "--output=json")[1])
    assert [document[name] for name in names] == [None, "keep", 448, 0.25, 4192, 3040]
