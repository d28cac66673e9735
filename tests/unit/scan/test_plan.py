"""The plan: every image is in exactly one part, whatever their number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.plan import SEGMENT_IMAGES, Part, Plan, make_plan, read_plan
from patchserve_server.scan.results import Results


@given(count=st.integers(0, 2 * 10**8))
def test_parts_have_all_images_and_few_are_lost_by_a_kill(count: int) -> None:
    plan = Plan.of(count)
    last = plan.part_count - 1
    assert sum((plan.size_of(last), last * plan.images_per_part)) == count if count else plan.part_count == 0
    assert 64 <= plan.images_per_part <= SEGMENT_IMAGES
    assert plan.images_per_part == 64 or count > plan.images_per_part / 2 * 2048


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 9, 30])
@pytest.mark.usefixtures("small_parts")
def test_a_plan_is_read_as_it_was_made(results: Results, count: int) -> None:
    paths = [f"/images/{number}\udcff\n.png" for number in range(count)]  # a name need not be text
    assert read_plan(results) is None
    plan = make_plan(iter(paths), results)
    assert read_plan(results) == plan
    parts = list(plan.parts(range(plan.part_count), results))
    assert [path for part in parts for path in part.paths] == paths
    assert [part.number for part in parts] == list(range(plan.part_count))
    assert {len(part.paths) for part in parts[:-1]} <= {4}
    if count > 8:
        assert [part.paths for part in plan.parts([0, 2], results)] == [tuple(paths[:4]), tuple(paths[8:12])]


@pytest.mark.usefixtures("small_parts")
def test_only_whole_published_parts_of_the_plan_are_done(results: Results) -> None:
    plan = make_plan(map(str, range(10)), results)
    for name in (
        Part(1, ()).file,
        "verdicts/part-000001.parquet.bak",
        "verdicts/part-000099.parquet",
        "verdicts/other",
    ):
        results.write(name, b"rows")
    assert plan.done(results) == {1}


@pytest.mark.usefixtures("small_parts")
def test_a_plan_that_has_lost_a_piece_is_an_error_and_not_an_empty_part(results: Results) -> None:
    plan = make_plan(map(str, range(10)), results)
    results.remove("plan/000001.json")
    with pytest.raises(ScanError, match=r"plan/000001.json is missing; --restart begins again"):
        list(plan.parts([2], results))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", ["plan.json", "plan/000000.json"])
def test_a_damaged_plan_is_an_error_that_says_what_to_do(results: Results, name: str) -> None:
    make_plan(map(str, range(10)), results)
    results.write(name, b'{"image_count": ')

    def read() -> list[Part]:
        plan = read_plan(results)
        return [] if plan is None else list(plan.parts(range(plan.part_count), results))

    with pytest.raises(ScanError, match=f"{name} is damaged; --restart begins again"):
        read()
