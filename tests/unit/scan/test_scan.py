"""A scan that is killed at any moment goes on, and in the end every image has one row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fakes.references import make_reference
from fakes.scans import FakeProgress, KilledError, KilledResults, rows_in, scan_options
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.inspection import OverlayFormat
from patchserve_server.scan import plan
from patchserve_server.scan.bucket_results import BucketResults
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.options import Overlays, ScanOptions
from patchserve_server.scan.plan import Plan
from patchserve_server.scan.references import kept_reference
from patchserve_server.scan.results import Results
from patchserve_server.scan.rows import counts_of, failed_row, parquet_of
from patchserve_server.scan.scan import Summary, scan
from patchserve_server.store.objects import MemoryObjectStorage

REFERENCE = make_reference()
OPTIONS = scan_options(reference_id=REFERENCE.reference_id, revision=REFERENCE.revision)
_names = itertools.count()


@dataclass
class Paths:
    """A source. It changes while it is listed again, as an archive does."""

    paths: Sequence[str]
    name: str = "/images"

    def list(self) -> Iterator[str]:
        return iter(self.paths)


@dataclass
class Engine:
    """Remembers what it inspects. Every image is unreadable."""

    results: Results
    inspected: list[str] = field(default_factory=list)

    def run(self, plan: Plan, numbers: Sequence[int]) -> Counts:
        total = Counts()
        for part in plan.parts(numbers, self.results):
            self.inspected += part.paths
            rows = [failed_row(OPTIONS, path, None, "UNREADABLE_IMAGE", "It is gone.") for path in part.paths]
            self.results.write(part.file, parquet_of(rows))
            total += counts_of(rows)
        return total


def scanned(
    results: Results, paths: Sequence[str], options: ScanOptions = OPTIONS, *, restart: bool = False
) -> tuple[Summary, Engine]:
    engine = Engine(results)
    source, progress = Paths(paths), FakeProgress()
    summary = scan(source, REFERENCE, options, results, run=engine.run, progress=progress, restart=restart)
    assert progress.image_count == len(rows_in(results))
    assert progress.earlier.image_count == len(rows_in(results)) - len(engine.inspected)
    return summary, engine


@pytest.mark.usefixtures("small_parts")
def test_a_scan_gives_every_image_a_row_once(results: Results) -> None:
    paths = [f"/images/{number}.png" for number in range(11)]
    summary, engine = scanned(results, paths)
    assert engine.inspected == paths == [row["path"] for row in rows_in(results)]
    assert summary.counts == summary.counts_of_run == Counts(failed={"UNREADABLE_IMAGE": 11})
    document = json.loads(results.read("summary.json") or b"")
    assert (document["images"], document["failed_by_reason"]) == (11, {"UNREADABLE_IMAGE": 11})
    again, engine = scanned(results, ["/images/new.png"])
    assert (engine.inspected, again.counts, again.counts_of_run) == ([], summary.counts, Counts())


def test_a_source_without_images_has_a_summary(results: Results) -> None:
    summary, _ = scanned(results, [])
    assert summary.counts == Counts()
    assert rows_in(results) == []


@settings(max_examples=30)
@given(
    count=st.integers(0, 25),
    kills=st.lists(st.tuples(st.integers(0, 16), st.booleans(), st.booleans()), max_size=8),
)
def test_a_scan_that_is_killed_anywhere_does_nothing_twice_that_was_published(
    count: int, kills: list[tuple[int, bool, bool]]
) -> None:
    paths, published = [f"/images/{number}.png" for number in range(count)], list[str]()
    results = BucketResults(MemoryObjectStorage(f"memory://{next(_names)}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SEGMENT_IMAGES", 8)
        patch.setattr(plan, "_SMALLEST_PART", 4)
        for change, is_made, restarts in [*kills, (None, True, False)]:
            killed = KilledResults(results, change, is_made=is_made)
            engine = Engine(killed)
            try:
                source = Paths(paths)
                summary = scan(
                    source, REFERENCE, OPTIONS, killed, run=engine.run, progress=FakeProgress(), restart=restarts
                )
            except KilledError:
                pass
            if not restarts:
                assert set(engine.inspected).isdisjoint(published)
            is_begun = results.read("scan.json") is not None  # a restart that was killed has forgotten the rows
            published = [row["path"] for row in rows_in(results)] if is_begun else []
            assert len(set(published)) == len(published)
    assert published == paths
    assert summary.counts.image_count == count
    assert kept_reference(results).revision == REFERENCE.revision


def changed(**changes: Any) -> Callable[[], ScanOptions]:
    return lambda: replace(OPTIONS, **changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (changed(source="/other"), r"begun with SOURCE /images, not /other\. Say the same to go on"),
        (changed(reference_id="belt"), "begun with --reference parcel, not belt"),
        (changed(sensitivity=1.5), r"begun with --sensitivity unset, not 1\.5"),
        (changed(max_regions=3, overlays=Overlays.ALL), "--max-regions 16, not 3, --overlays none, not all"),
        (changed(overlay_format=OverlayFormat.PNG), "--overlay-format jpeg, not png"),
        (changed(overlay_max_side_px=0), "--overlay-max-side 1280, not 0"),
        (changed(decode="device"), "--decode cpu, not device"),
        (changed(revision="cd" * 32), r"which is at cdcdcdcdcdcd now\. Name other results, to compare both; or go on"),
    ],
)
def test_another_scan_is_refused_in_the_same_place_and_changes_nothing(
    results: Results, options: Callable[[], ScanOptions], message: str
) -> None:
    scanned(results, ["/images/a.png"])
    before = rows_in(results)
    with pytest.raises(ScanError, match=message) as refused:
        scanned(results, ["/images/a.png"], options())
    assert "--restart removes what is there and begins again" in str(refused.value)
    assert rows_in(results) == before


def test_a_restart_removes_only_what_scans_write(results: Results) -> None:
    scanned(results, ["/images/a.png", "/images/b.png"])
    results.write("overlays/part-000000/0001-b.jpg", b"picture")
    for name in ("notes.txt", "verdicts/mine.parquet", "overlays/mine.jpg"):
        results.write(name, b"of somebody else")
    options = replace(OPTIONS, revision="cd" * 32)
    _, engine = scanned_beside(results, ["/images/c.png"], options)
    assert engine.inspected == ["/images/c.png"]
    assert results.read("overlays/part-000000/0001-b.jpg") is None
    for name in ("notes.txt", "verdicts/mine.parquet", "overlays/mine.jpg"):
        assert results.read(name) == b"of somebody else"


def scanned_beside(results: Results, paths: Sequence[str], options: ScanOptions) -> tuple[Summary, Engine]:
    engine = Engine(results)
    return scan(
        Paths(paths), REFERENCE, options, results, run=engine.run, progress=FakeProgress(), restart=True
    ), engine


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"format_version": 2}', b'{"format_version": 1}'])
def test_a_scan_of_another_version_is_refused(results: Results, damaged: bytes) -> None:
    results.write("scan.json", damaged)
    with pytest.raises(ScanError, match=r"scan\.json is damaged, or of another version"):
        scanned(results, [])


def test_a_damaged_part_is_named(results: Results) -> None:
    scanned(results, ["/images/a.png"])
    results.write("verdicts/part-000000.parquet", b"PAR1")
    with pytest.raises(ScanError, match=r"part-000000\.parquet is damaged\. Remove it"):
        scanned(results, ["/images/a.png"])
