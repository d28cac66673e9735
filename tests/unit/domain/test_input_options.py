"""The size of model inputs: what a load may ask for, and what it gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.input_options import AspectRatio, InputOptions, InputShape

SIDES = st.integers(1, 65_535)
STEPS = st.sampled_from([1, 14, 16, 32])


def shape_of(options: InputOptions, size_px: tuple[int, int], step_px: int = 32) -> tuple[int, int]:
    return options.shape_for(size_px, step_px=step_px, default_side_px=224).size_px


@pytest.mark.parametrize(
    ("options", "size_px", "expected"),
    [
        (InputOptions(), (1001, 712), (224, 224)),
        (InputOptions(longer_side_px=320), (1001, 712), (320, 320)),
        (InputOptions(longer_side_px=330), (1001, 712), (320, 320)),
        (InputOptions(longer_side_px=640, aspect=AspectRatio.KEEP), (1001, 712), (640, 448)),
        (InputOptions(longer_side_px=640, aspect=AspectRatio.KEEP), (712, 1001), (448, 640)),
        (InputOptions(longer_side_px=1024, aspect=AspectRatio.KEEP), (20_000, 10), (1024, 32)),
        (InputOptions(auto=True), (4190, 3040), (320, 320)),
        (InputOptions(auto=True), (256, 200), (256, 256)),
        (InputOptions(auto=True), (64, 64), (224, 224)),
        (InputOptions(tile_px=448), (4096, 3072), (4096, 4096)),
        (InputOptions(tile_px=448, aspect=AspectRatio.KEEP), (4096, 3072), (4096, 3072)),
        (InputOptions(tile_px=448, aspect=AspectRatio.KEEP), (20_000, 1000), (20_000, 992)),
        (InputOptions(tile_px=448, longer_side_px=2048, aspect=AspectRatio.KEEP), (4096, 3072), (2048, 1536)),
    ],
)
def test_the_shape_follows_the_options(
    options: InputOptions, size_px: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shape_of(options, size_px) == expected


def test_a_step_of_14_px_is_rounded_to_the_nearest() -> None:
    assert shape_of(InputOptions(longer_side_px=320), (500, 500), 14) == (322, 322)


@given(SIDES, SIDES, STEPS, st.integers(224, 1024), st.sampled_from(AspectRatio))
def test_sides_are_multiples_of_the_step_near_what_was_asked_for(
    width: int, height: int, step_px: int, side_px: int, aspect: AspectRatio
) -> None:
    shape = InputOptions(longer_side_px=side_px, aspect=aspect).shape_for(
        (width, height), step_px=step_px, default_side_px=224
    )
    assert all(side % step_px == 0 for side in shape.sides_px)
    assert abs(max(shape.sides_px) - side_px) <= step_px / 2
    assert (shape.width_px >= shape.height_px) == (width >= height or shape.width_px == shape.height_px)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"longer_side_px": 223}, "224 to 1024; up to 32000 with tile_px, not 223"),
        ({"longer_side_px": 1025}, "224 to 1024"),
        ({"longer_side_px": 32_001, "tile_px": 448}, "224 to 32000, not 32001"),
        ({"longer_side_px": 320, "auto": True}, "either longer_side_px or auto"),
        ({"tile_px": 100}, "tile_px of input is 224 to 1024"),
        ({"tile_px": 1025}, "tile_px of input is 224 to 1024"),
        ({"tile_overlap": 0.51}, "tile_overlap of input is a share of the tile's side, 0 to 0.5"),
        ({"tile_overlap": float("nan")}, "tile_overlap"),
        ({"tile_overlap": -0.1}, "tile_overlap"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        InputOptions(**values)  # type: ignore[arg-type]


@given(SIDES, SIDES)
def test_a_map_has_the_inputs_shape_or_about_a_million_pixels(height: int, width: int) -> None:
    shape = InputShape(height, width)
    reduced = shape.map_shape
    if shape.pixels <= 2**20:
        assert reduced == shape
    else:
        assert 2**17 <= reduced.pixels <= 2**20


def test_a_shape_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="1 px or more"):
        InputShape(0, 224)
