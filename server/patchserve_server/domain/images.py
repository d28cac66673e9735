"""Images as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.white_level import check_white_level

RgbImage: TypeAlias = NDArray[np.uint8]
"""One image, upright (EXIF orientation applied): (H, W, 3) uint8, RGB."""

ModelInputs: TypeAlias = NDArray[np.uint8]
"""Images scaled to the input shape of a reference: (N, H, W, 3) uint8, RGB."""

AnomalyMap: TypeAlias = NDArray[np.float32]
"""Raw patch distances, scaled to the map shape of a reference: (H, W) float32, 0 or more."""


@dataclass(frozen=True, slots=True)
class SentImage:
    """One image as it was sent.

    Raises:
        InvalidInputError: the white level is out of its range.
    """

    content: bytes | RawFrame  # an encoded file, or pixels
    white_level: int | None = None  # the value that is white in samples of 16 bits; None: not said

    def __post_init__(self) -> None:
        check_white_level(self.white_level)

    @property
    def nbytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.nbytes

    def with_default(self, white_level: int | None) -> SentImage:
        """The same image with this white level, if it has none of its own."""
        return self if self.white_level is not None else replace(self, white_level=white_level)
