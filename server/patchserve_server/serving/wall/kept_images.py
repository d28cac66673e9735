"""Images that are kept after their inspection, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from patchserve_server.domain.events import ImageInspected
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import EncodedOverlay
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.wall.tile import Tile

_LARGEST_SHARE: Final = 0.25  # of all bytes, for one image


@dataclass(frozen=True, slots=True, eq=False)
class KeptImage:
    """An image, and the tile that shows it."""

    tile: Tile
    image: SentImage
    map_bytes: int  # of the anomaly map from which its overlay is drawn
    draw_overlay: Callable[[SentImage], EncodedOverlay]  # blocks; it does not hold the image, which may be of a batch

    @property
    def reference_id(self) -> ReferenceId:
        return self.tile.inspection.reference_id

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + self.map_bytes


class KeptImages:
    """The last images, within limits. The reference with most images loses its oldest one first."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._kept: dict[str, KeptImage] = {}  # by tile, the oldest first
        self._count = Counter[ReferenceId]()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def accepts(self, event: ImageInspected) -> bool:
        """Whether its image is small enough to be kept."""
        return event.image.nbytes + event.map_bytes <= self._max_bytes * _LARGEST_SHARE

    def add(self, tile: Tile, event: ImageInspected) -> None:
        """Keeps an image that is accepted."""
        kept = KeptImage(tile, _own(event.image), event.map_bytes, event.draw_overlay)
        self._kept[tile.tile_id] = kept
        self._count[kept.reference_id] += 1
        self.nbytes += kept.nbytes
        while len(self._kept) > self._max_count or self.nbytes > self._max_bytes:
            most = max(self._count, key=self._count.__getitem__)
            self._remove(next(kept for kept in self._kept.values() if kept.reference_id == most))

    def find(self, tile_id: str) -> KeptImage | None:
        return self._kept.get(tile_id)

    def tiles(self, reference_id: ReferenceId | None) -> list[Tile]:
        """The tiles of the kept images of one reference, or of all; the oldest first."""
        return [kept.tile for kept in self._kept.values() if reference_id in (None, kept.reference_id)]

    def redraw(self, tile: Tile) -> None:
        """Replaces the tile of an image, if the image is still kept."""
        if (kept := self._kept.get(tile.tile_id)) is not None:
            self._kept[tile.tile_id] = replace(kept, tile=tile)

    def forget(self, reference_id: ReferenceId) -> None:
        """Removes all images of a reference."""
        for kept in [kept for kept in self._kept.values() if kept.reference_id == reference_id]:
            self._remove(kept)

    def clear(self) -> None:
        self._kept.clear()
        self._count.clear()
        self.nbytes = 0

    def _remove(self, kept: KeptImage) -> None:
        del self._kept[kept.tile.tile_id]
        self._count -= Counter([kept.reference_id])  # drops references that have none
        self.nbytes -= kept.nbytes


def _own(image: SentImage) -> SentImage:
    """The image without the rest of its batch: an array may be a view into a larger one."""
    if isinstance(image.content, bytes):
        return image
    return replace(image, content=replace(image.content, samples=image.content.samples.copy()))
