"""The size in which the backbone sees images."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Self

from patchserve_server.domain.errors import InvalidInputError

DEFAULT_SIDE_PX: Final = 224
VERDICT_SIDE_PX: Final = 320
"""The side that gives the best verdicts on most items (docs/adr/0016)."""
AUTO_SIDE_PX: Final = VERDICT_SIDE_PX
"""The longest side that `auto` chooses. More finds smaller damage, but gives worse verdicts on many items."""
WHOLE_SIDE_RANGE_PX: Final = (224, 1024)
TILED_SIDE_RANGE_PX: Final = (224, 32_000)
"""Augmented views are warped by OpenCV, which takes sides below 32,767 px."""
TILE_RANGE_PX: Final = (224, 1024)
MAX_TILE_OVERLAP: Final = 0.5
DEFAULT_TILE_OVERLAP: Final = 0.25

_MAX_MAP_PIXELS = 2**20


class AspectRatio(enum.Enum):
    """What happens to the proportions of an image."""

    SQUEEZE = "squeeze"  # every image becomes a square
    KEEP = "keep"  # model inputs have the proportions of the first reference image


@dataclass(frozen=True, slots=True)
class InputShape:
    """The shape of the model inputs of one reference.

    Raises:
        ValueError: a side is below 1.
    """

    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        if min(self.height_px, self.width_px) < 1:
            raise ValueError(f"the sides of a model input are 1 px or more, not {self.width_px} x {self.height_px}")

    @classmethod
    def square(cls, side_px: int = DEFAULT_SIDE_PX) -> Self:
        return cls(side_px, side_px)

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width_px, self.height_px

    @property
    def sides_px(self) -> tuple[int, int]:
        """(height, width), the order of axes of an array."""
        return self.height_px, self.width_px

    @property
    def pixels(self) -> int:
        return self.height_px * self.width_px

    @property
    def map_shape(self) -> InputShape:
        """The shape of anomaly maps: the same, or of very large inputs the smallest part with at most 2^20 pixels.

        The patch grid is coarser than either, so a smaller map has no fewer details.
        """
        divisor = 1
        while -(-self.height_px // divisor) * -(-self.width_px // divisor) > _MAX_MAP_PIXELS:
            divisor += 1
        return InputShape(-(-self.height_px // divisor), -(-self.width_px // divisor))

    def __str__(self) -> str:
        return f"{self.width_px} x {self.height_px}"


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How large the backbone sees images. One shape for all images of a reference: others are scaled to it.

    Raises:
        InvalidInputError: a value is out of its range, or two options exclude each other.
    """

    longer_side_px: int | None = None  # None: the default of the profile; with tiles: the first image's own
    auto: bool = False  # by the size of the first reference image; not together with longer_side_px
    aspect: AspectRatio = AspectRatio.SQUEEZE
    tile_px: int | None = None  # side of the square tiles that the backbone sees one by one; None: the whole image
    tile_overlap: float = DEFAULT_TILE_OVERLAP  # of neighboring tiles, as a share of a tile's side

    def __post_init__(self) -> None:
        if self.auto and self.longer_side_px is not None:
            raise InvalidInputError("", "Set either longer_side_px or auto of input, not both.")
        smallest, largest = WHOLE_SIDE_RANGE_PX if self.tile_px is None else TILED_SIDE_RANGE_PX
        if self.longer_side_px is not None and not smallest <= self.longer_side_px <= largest:
            more = f"; up to {TILED_SIDE_RANGE_PX[1]} with tile_px" if self.tile_px is None else ""
            message = f"longer_side_px of input is {smallest} to {largest}{more}, not {self.longer_side_px}."
            raise InvalidInputError("longer_side_px", message)
        if self.tile_px is not None and not TILE_RANGE_PX[0] <= self.tile_px <= TILE_RANGE_PX[1]:
            message = f"tile_px of input is {TILE_RANGE_PX[0]} to {TILE_RANGE_PX[1]}, not {self.tile_px}."
            raise InvalidInputError("tile_px", message)
        if not 0 <= self.tile_overlap <= MAX_TILE_OVERLAP:  # also excludes NaN
            message = f"tile_overlap of input is a share of the tile's side, 0 to {MAX_TILE_OVERLAP:g}."
            raise InvalidInputError("tile_overlap", message)

    def shape_for(self, size_px: tuple[int, int], *, step_px: int, default_side_px: int) -> InputShape:
        """The shape of the model inputs of a reference.

        Args:
            size_px: (width, height) of the first reference image, upright.
            step_px: sides must be multiples of it; they are rounded to the nearest.
            default_side_px: of the profile.
        """
        longer_px = self._longer_side_px(max(size_px), default_side_px)
        if self.aspect is AspectRatio.SQUEEZE:
            return InputShape.square(_round_to(longer_px, step_px))
        width, height = (_round_to(side * longer_px / max(size_px), step_px) for side in size_px)
        return InputShape(height, width)

    def _longer_side_px(self, own_side_px: int, default_side_px: int) -> int:
        if self.longer_side_px is not None:
            return self.longer_side_px
        if self.tile_px is not None:
            return min(max(own_side_px, TILED_SIDE_RANGE_PX[0]), TILED_SIDE_RANGE_PX[1])
        return min(max(own_side_px, DEFAULT_SIDE_PX), AUTO_SIDE_PX) if self.auto else default_side_px


def _round_to(side_px: float, step_px: int) -> int:
    return max(1, round(side_px / step_px)) * step_px
