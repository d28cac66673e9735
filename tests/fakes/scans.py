"""Parts of scans: results that a kill cuts off, progress that is only remembered."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from patchserve_server.scan.counts import Counts
from patchserve_server.scan.options import ScanOptions
from patchserve_server.scan.results import Results


def scan_options(**changes: Any) -> ScanOptions:
    return ScanOptions(**{"source": "/images", "reference_id": "parcel", "revision": "ab" * 32, **changes})


def rows_in(results: Results) -> list[dict[str, Any]]:
    """All rows, in the order of the parts."""
    files = sorted(results.names("verdicts"))
    return [row for file in files for row in pq.read_table(io.BytesIO(results.read(file) or b"")).to_pylist()]


class FakeProgress:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.listed: list[int] = []
        self.image_count = -1
        self.earlier = Counts()
        self.inspected = 0
        self.published = Counts()

    def listing(self, image_count: int) -> None:
        self.listed.append(image_count)

    def planned(self, image_count: int, done: Counts) -> None:
        self.image_count, self.earlier = image_count, done

    def opening(self) -> None:
        """Nothing is opened."""

    def images_done(self, count: int) -> None:
        self.inspected += count

    def part_done(self, counts: Counts) -> None:
        self.published += counts


class KilledError(BaseException):
    """The process is gone."""


class KilledResults:
    """Results whose process is killed before or after its n-th change. Later changes are not made at all."""

    def __init__(self, results: Results, change: int | None, *, is_made: bool) -> None:
        self._results = results
        self._left = change
        self._is_made = is_made

    @property
    def name(self) -> str:
        return self._results.name

    def read(self, name: str) -> bytes | None:
        return self._results.read(name)

    def write(self, name: str, data: bytes) -> None:
        self._change(lambda: self._results.write(name, data))

    def write_file(self, name: str, path: Path) -> None:
        self._change(lambda: self._results.write_file(name, path))

    def fetch(self, name: str, path: Path) -> None:
        self._results.fetch(name, path)

    def names(self, folder: str) -> Iterator[str]:
        return self._results.names(folder)

    def remove(self, name: str) -> None:
        self._change(lambda: self._results.remove(name))

    def _change(self, make: Any) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                if self._is_made:
                    make()
                raise KilledError
        make()
