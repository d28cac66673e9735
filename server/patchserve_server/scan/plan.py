"""The plan of a scan: all its images, in parts. It is made once, and kept with the results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Final

from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.results import Results

PLAN: Final = "plan.json"
SEGMENTS: Final = "plan"
VERDICTS: Final = "verdicts"
OVERLAYS: Final = "overlays"
SEGMENT_IMAGES: Final = 4096
_SMALLEST_PART: Final = 64
_PARTS: Final = 2048  # of a large scan: many, so that a kill costs little; few enough for those who read the files


@dataclass(frozen=True, slots=True)
class Part:
    """Images whose rows are published together, in one file.

    Args:
        number: of the part, from 0.
        paths: absolute, or URLs.
    """

    number: int
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"part-{self.number:06}"

    @property
    def file(self) -> str:
        """The name of its verdicts in the results."""
        return f"{VERDICTS}/{self.name}.parquet"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many images there are, and how they are divided.

    Raises:
        ValueError: a segment of the plan would have a piece of a part.
    """

    image_count: int
    images_per_part: int
    images_per_segment: int

    def __post_init__(self) -> None:
        if self.image_count < 0 or self.images_per_part < 1 or self.images_per_segment % self.images_per_part:
            raise ValueError(f"this is no plan: {self}")

    @classmethod
    def of(cls, image_count: int) -> Plan:
        """The plan of a scan of so many images: the more there are, the larger are its parts."""
        images_per_part = _SMALLEST_PART
        while images_per_part < SEGMENT_IMAGES and image_count > images_per_part * _PARTS:
            images_per_part *= 2
        return cls(image_count, images_per_part, SEGMENT_IMAGES)

    @property
    def part_count(self) -> int:
        return -(-self.image_count // self.images_per_part)

    def size_of(self, part: int) -> int:
        """The number of images of a part."""
        return min(self.images_per_part, self.image_count - part * self.images_per_part)

    def parts(self, numbers: Iterable[int], results: Results) -> Iterator[Part]:
        """These parts, of which one segment of the plan is in memory at a time.

        Args:
            numbers: of the parts, ascending.
            results: that have the plan.
        """
        segment, paths = -1, list[str]()
        for number in numbers:
            first = number * self.images_per_part
            if first // self.images_per_segment != segment:
                segment = first // self.images_per_segment
                paths = _read_segment(results, segment)
            start = first % self.images_per_segment
            yield Part(number, tuple(paths[start : start + self.size_of(number)]))

    def done(self, results: Results) -> set[int]:
        """The numbers of the parts that are published."""
        by_file = {Part(number, ()).file: number for number in range(self.part_count)}
        return {by_file[name] for name in results.names(VERDICTS) if name in by_file}


def make_plan(paths: Iterable[str], results: Results) -> Plan:
    """List all images, and keep the plan. A plan that a kill has left without its end is not one: it is made again."""
    count = 0
    for segment, chunk in enumerate(_chunks(paths)):
        results.write(_segment_file(segment), json.dumps(chunk).encode())
        count += len(chunk)
    plan = Plan.of(count)
    results.write(PLAN, json.dumps(asdict(plan), indent=2).encode())
    return plan


def read_plan(results: Results) -> Plan | None:
    """The plan that was kept; None: there is none.

    Raises:
        ScanError: it is damaged.
    """
    data = results.read(PLAN)
    if data is None:
        return None
    try:
        return Plan(**json.loads(data))
    except (TypeError, ValueError) as error:
        raise _damaged(results, PLAN) from error


def _chunks(paths: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(paths)
    while chunk := list(islice(remaining, SEGMENT_IMAGES)):
        yield chunk


def _segment_file(segment: int) -> str:
    return f"{SEGMENTS}/{segment:06}.json"


def _read_segment(results: Results, segment: int) -> list[str]:
    data = results.read(_segment_file(segment))
    if data is None:
        raise ScanError(f"{results.name}/{_segment_file(segment)} is missing; --restart begins again.")
    try:
        paths: list[str] = json.loads(data)
    except ValueError as error:
        raise _damaged(results, _segment_file(segment)) from error
    return paths


def _damaged(results: Results, name: str) -> ScanError:
    return ScanError(f"{results.name}/{name} is damaged; --restart begins again.")
