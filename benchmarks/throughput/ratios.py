"""What the rows say about each other, and what they should say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from throughput.comparison import ANOMALIB, BARE, FLASK, PATCHSERVE
from throughput.material import WIDE_RESNET
from throughput.rounds import Row

_OF_FLASK = {"fp32": 2.5, "bf16": 4.5, "int8": 6.0}
_OF_ANOMALIB = 2.0
_OF_BARE = {True: 0.8, False: 0.92}  # with overlay, scores only
_CROWD = 32
_TAIL = 1.5
_OUTPUTS = {True: "with overlay", False: "scores only"}

Ratio = dict[str, Any]


def ratios(rows: Sequence[Row]) -> dict[str, Ratio]:
    """Name to value, target and whether it is met. A ratio whose systems were not measured is left out."""
    return dict([*_of_flask(rows), *_of_anomalib(rows), *_of_bare(rows), *_tails(rows)])


def _fastest(rows: Sequence[Row], system: str, **wanted: object) -> float | None:
    """Images a second, of the systems whose names begin so."""
    fitting = [row for row in rows if row["system"].startswith(system)]
    fitting = [row for row in fitting if all(row[key] == value for key, value in wanted.items())]
    return max((row["images_per_second"] for row in fitting), default=None)


def _kinds(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(backbone, precision) of ours, in their order."""
    return list(dict.fromkeys((row["backbone"], row["precision"]) for row in rows if row["system"] == PATCHSERVE))


def _at_least(value: float, target: float) -> Ratio:
    return {"value": round(value, 3), "target": f"at least {target:g}", "met": value >= target}


def _of_flask(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    theirs = _fastest(rows, FLASK)
    for precision, target in _OF_FLASK.items():
        ours = _fastest(rows, PATCHSERVE, backbone=WIDE_RESNET, precision=precision, overlay=True)
        if ours and theirs:
            yield f"{precision} over the best Flask, {WIDE_RESNET}, with overlay", _at_least(ours / theirs, target)


def _of_anomalib(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    theirs = _fastest(rows, ANOMALIB)
    for backbone, precision in _kinds(rows):
        ours = _fastest(rows, PATCHSERVE, backbone=backbone, precision=precision, overlay=False)
        if ours and theirs and backbone == WIDE_RESNET:
            name = f"{precision} over anomalib's fastest, {backbone}, scores only"
            yield name, _at_least(ours / theirs, _OF_ANOMALIB)


def _of_bare(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    for backbone, precision in _kinds(rows):
        limit = _fastest(rows, BARE, backbone=backbone, precision=precision)
        for overlay, target in _OF_BARE.items():
            ours = _fastest(rows, PATCHSERVE, backbone=backbone, precision=precision, overlay=overlay)
            if ours and limit:
                name = f"{precision} over its bare backbone, {backbone}, {_OUTPUTS[overlay]}"
                yield name, _at_least(ours / limit, target)


def _tails(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    """The slowest answers, over what each would take if all clients were served in turn."""
    for row in rows:
        if row["system"] == PATCHSERVE and row["clients"] == _CROWD:
            value = row["p99_ms"] / 1000 * row["images_per_second"] / _CROWD
            name = (
                f"{row['precision']} p99 x images/s / {_CROWD} clients, {row['backbone']}, {_OUTPUTS[row['overlay']]}"
            )
            yield name, {"value": round(value, 3), "target": f"at most {_TAIL:g}", "met": value <= _TAIL}
