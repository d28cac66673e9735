"""KeptImages: bounded, and no reference pushes out the images of another that has fewer."""

from __future__ import annotations

import itertools

import numpy as np
from fakes.events import OTHER, SENT, inspected
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.images import SentImage
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId
from patchserve_server.serving.wall.kept_images import KeptImages
from patchserve_server.serving.wall.tile import Tile

MIB = 2**20
numbers = itertools.count(1)


def add(kept: KeptImages, reference_id: ReferenceId = DEFAULT_REFERENCE_ID, image: SentImage = SENT) -> Tile:
    event, number = inspected(reference_id, image=image), next(numbers)
    tile = Tile(f"run-{number}", number, 0.0, event.origin, event.inspection, is_kept=True)
    kept.add(tile, event)
    return tile


REFERENCES = st.sampled_from([DEFAULT_REFERENCE_ID, OTHER, ReferenceId("third")])


@given(st.lists(st.tuples(REFERENCES, st.integers(0, MIB)), max_size=40), REFERENCES)
def test_it_stays_within_its_limits_and_keeps_the_newest(
    images: list[tuple[ReferenceId, int]], deleted: ReferenceId
) -> None:
    kept = KeptImages(10, 5 * MIB)
    for reference_id, nbytes in images:
        image = SentImage(bytes(nbytes))
        assert kept.accepts(inspected(reference_id, image=image))
        tile = add(kept, reference_id, image)
        assert kept.find(tile.tile_id) is not None
        assert len(kept) <= 10
        assert kept.nbytes <= 5 * MIB
    found = [kept.find(tile.tile_id) for tile in kept.tiles(None)]
    assert kept.nbytes == sum(one.nbytes for one in found if one is not None)
    kept.forget(deleted)
    assert kept.tiles(deleted) == []
    kept.clear()
    assert (len(kept), kept.nbytes) == (0, 0)


def test_a_reference_with_many_images_does_not_push_out_the_only_one_of_another() -> None:
    kept = KeptImages(4, 100 * MIB)
    rare = add(kept, OTHER)
    tiles = [add(kept) for _ in range(50)]
    assert kept.tiles(OTHER) == [rare]
    assert kept.tiles(DEFAULT_REFERENCE_ID) == tiles[-3:]


def test_an_image_that_would_push_out_most_others_is_not_accepted() -> None:
    kept = KeptImages(10, 4 * MIB)
    assert not kept.accepts(inspected(image=SentImage(bytes(MIB + 1))))
    assert kept.accepts(inspected(image=SentImage(bytes(MIB))))
    assert not kept.accepts(inspected(image=SentImage(bytes(MIB // 2)), map_bytes=MIB // 2 + 1))


def test_pixels_of_a_batch_are_kept_without_the_rest_of_the_batch() -> None:
    kept, batch = KeptImages(10, 4 * MIB), np.zeros((8, 4, 4, 3), np.uint8)
    tile = add(kept, image=SentImage(RawFrame(batch[3]), 4095))
    found = kept.find(tile.tile_id)
    assert found is not None
    assert isinstance(found.image.content, RawFrame)
    assert not np.shares_memory(found.image.content.samples, batch)
    assert found.image.white_level == 4095
