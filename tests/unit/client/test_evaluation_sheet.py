"""The layout of a contact sheet."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_client.evaluation.sheet_layout import MARGIN_PX, Page, shown_size

sides_px = st.integers(16, 4000)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(sides_px, sides_px), min_size=1, max_size=12))
def test_images_of_any_size_are_on_the_page_in_order_and_do_not_overlap(sizes_px: list[tuple[int, int]]) -> None:
    page = Page.of([shown_size(size_px) for size_px in sizes_px])
    width_px, height_px = page.size_px
    assert len(page.places) == len(sizes_px)
    for place in page.places:
        assert place.left_px >= MARGIN_PX
        assert place.left_px + place.width_px + MARGIN_PX <= width_px
        assert place.image_top_px + place.image_px[1] + MARGIN_PX <= height_px
    for first, second in pairwise(page.places):
        in_one_row = first.top_px == second.top_px and first.left_px + first.width_px < second.left_px
        in_next_row = second.left_px == MARGIN_PX and first.image_top_px + first.image_px[1] < second.top_px
        assert in_one_row or in_next_row


@pytest.mark.parametrize("size_px", [(640, 480), (576, 768), (300, 300)])
def test_twelve_equal_images_leave_no_cell_empty(size_px: tuple[int, int]) -> None:
    rows = [place.top_px for place in Page.of([shown_size(size_px)] * 12).places]
    assert len({rows.count(row) for row in rows}) == 1
