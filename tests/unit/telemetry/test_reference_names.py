"""A caller cannot make series without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.telemetry.metrics.reference_names import OTHER, ReferenceNames


@given(st.lists(st.text(min_size=1)), st.integers(0, 5))
def test_the_first_names_are_kept_and_all_others_share_one(asked: list[str], limit: int) -> None:
    names = ReferenceNames(lambda: limit)
    labels = [names.label(name) for name in asked]
    first = list(dict.fromkeys(asked))[:limit]
    assert labels == [name if name in first else OTHER for name in asked]
    assert len(set(labels)) <= limit + 1


def test_the_limit_may_change_and_no_name_is_taken_back() -> None:
    limit = 1
    names = ReferenceNames(lambda: limit)
    assert [names.label(each) for each in ("a", "b")] == ["a", OTHER]
    limit = 2
    assert [names.label(each) for each in ("a", "b", "c")] == ["a", "b", OTHER]
    limit = 0
    assert [names.label(each) for each in ("a", "b", "d")] == ["a", "b", OTHER]
