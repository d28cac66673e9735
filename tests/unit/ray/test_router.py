"""Which replica gets a call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.ray.router import preferred

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)


@given(NAMES, st.text(max_size=8), st.data())
def test_every_replica_is_tried_once_and_those_with_the_reference_first(
    names: list[str], reference: str, data: st.DataObject
) -> None:
    has_it = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    groups = preferred(reference, names, [[reference] if has else ["another"] for has in has_it])
    assert sorted(index for group in groups for index in group) == list(range(len(names)))
    assert all(groups)
    if any(has_it):
        assert groups[0] == [index for index, has in enumerate(has_it) if has]


@given(NAMES, st.text(max_size=8), st.text(min_size=9, max_size=9))
def test_a_new_replica_takes_references_over_and_moves_no_other(
    names: list[str], reference: str, newcomer: str
) -> None:
    nothing: list[list[str]] = [[] for _ in range(len(names) + 1)]
    before = [names[index] for (index,) in preferred(reference, names, nothing)]
    after = [[*names, newcomer][index] for (index,) in preferred(reference, [*names, newcomer], nothing)]
    assert [name for name in after if name != newcomer] == before


def test_references_spread_over_the_replicas() -> None:
    names = ["a", "b", "c", "d"]
    firsts = [preferred(f"reference-{number}", names, [()] * 4)[0][0] for number in range(400)]
    assert all(firsts.count(index) > 50 for index in range(4))
