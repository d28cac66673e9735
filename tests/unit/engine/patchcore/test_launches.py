"""What a pass launches on a GPU beside its network. Each launch costs the interpreter 4 to 8 us, and the goal of a pass
of 32 images is 6 ms with two workers under one lock.

On the meta device, which computes nothing, whatever would wait for a result fails.
"""

from __future__ import annotations

import pytest
from gpu.launches import KINDS, counted

IMAGES = 32


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_has_one_copy_in_and_one_out_and_few_launches(kind: str) -> None:
    launches, copies = counted(kind)
    assert copies == 2
    assert launches.count <= 115, launches.by_name


def test_one_image_of_a_small_bank_has_few_launches() -> None:
    launches, _ = counted("NOTEBOOK")
    assert launches.count <= 55, launches.by_name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "tiles" not in kind])
def test_more_images_make_larger_launches_and_not_more(kind: str) -> None:
    one, many = counted(kind)[0], counted(kind, images=IMAGES)[0]
    assert many.count <= one.count + 12, many.by_name - one.by_name


def test_many_rows_are_searched_in_few_parts() -> None:
    launches, copies = counted("NOTEBOOK", rows=75_000, images=IMAGES)
    assert copies == 2
    assert launches.count <= 320, launches.by_name


@pytest.mark.parametrize(("kind", "most"), [("NOTEBOOK", 175), ("VERDICT", 180), ("PAPER", 365)])
def test_mixed_references_share_the_copies_and_what_they_do_alike(kind: str, most: int) -> None:
    launches, copies = counted(kind, images=IMAGES, references=8)
    assert copies == 2
    assert launches.count <= most, launches.by_name
    assert launches.by_name["upsample_bilinear2d"] == 1
    assert launches.by_name["bmm"] == 1
