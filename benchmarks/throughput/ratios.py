"""Ratios between the systems, and their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from throughput.comparison import ANOMALIB, BARE, FLASK, HTTP_FACE, PATCHSERVE
from throughput.inputs import EMBEDDED, WIDE_RESNET
from throughput.mixed import MIXED_REFERENCES
from throughput.rounds import Row, describe_load

_FLASK_TARGETS = {"fp32": 2.8, "int8": 7.0}
_ANOMALIB_TARGETS = {"fp32": 2.0}
_BARE_TARGETS = {  # with overlay, scores only
    (WIDE_RESNET, "fp32"): (0.8, 0.92),
    (WIDE_RESNET, "int8"): (0.6, 0.8),
    (EMBEDDED, "fp32"): (0.5, 0.8),
}
_HTTP_TARGET = 0.9
_TAIL_CLIENTS = 32
_TAIL_TARGET = 1.4
_MIXED_TARGET = 0.9
_OUTPUTS = {True: "with overlay", False: "scores only"}

Ratio = dict[str, Any]


def compute_ratios(rows: Sequence[Row], mixed: Sequence[Row]) -> dict[str, Ratio]:
    """Name -> value, target (empty: none), and whether it is met (None: no target).

    Without ratios of systems that were not measured.
    """
    return dict(
        [
            *_over_flask(rows),
            *_over_anomalib(rows),
            *_over_bare(rows),
            *_http_over_grpc(rows),
            *_tail_latencies(rows),
            *_mixed_over_one(mixed),
        ]
    )


def _fastest(rows: Sequence[Row], system: str, **fields: object) -> float | None:
    """The most images per second of systems whose names start with `system`, among rows with these fields."""
    matching = [row for row in rows if row["system"].startswith(system)]
    matching = [row for row in matching if all(row[key] == value for key, value in fields.items())]
    return max((row["images_per_second"] for row in matching), default=None)


def _backbones_and_precisions(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Those that patchserve was measured with, in the order of the rows."""
    return list(dict.fromkeys((row["backbone"], row["precision"]) for row in rows if row["system"] == PATCHSERVE))


def _at_least(value: float, target: float | None) -> Ratio:
    if target is None:
        return {"value": round(value, 3), "target": "", "met": None}
    return {"value": round(value, 3), "target": f"at least {target:g}", "met": value >= target}


def _over_flask(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    theirs = _fastest(rows, FLASK)
    for backbone, precision in _backbones_and_precisions(rows):
        ours = _fastest(rows, PATCHSERVE, backbone=backbone, precision=precision, overlay=True)
        if ours and theirs and backbone == WIDE_RESNET:
            name = f"{precision} over the best Flask, {backbone}, with overlay"
            yield name, _at_least(ours / theirs, _FLASK_TARGETS.get(precision))


def _over_anomalib(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    theirs = _fastest(rows, ANOMALIB)
    for backbone, precision in _backbones_and_precisions(rows):
        ours = _fastest(rows, PATCHSERVE, backbone=backbone, precision=precision, overlay=False)
        if ours and theirs and backbone == WIDE_RESNET:
            name = f"{precision} over anomalib's fastest, {backbone}, scores only"
            yield name, _at_least(ours / theirs, _ANOMALIB_TARGETS.get(precision))


def _over_bare(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    for backbone, precision in _backbones_and_precisions(rows):
        limit = _fastest(rows, BARE, backbone=backbone, precision=precision)
        targets = _BARE_TARGETS.get((backbone, precision), (None, None))
        for overlay, target in zip((True, False), targets, strict=True):
            ours = _fastest(rows, PATCHSERVE, backbone=backbone, precision=precision, overlay=overlay)
            if ours and limit:
                name = f"{precision} over its bare backbone, {backbone}, {_OUTPUTS[overlay]}"
                yield name, _at_least(ours / limit, target)


def _http_over_grpc(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    for row in rows:
        if row["system"] != HTTP_FACE:
            continue
        case = {name: row[name] for name in ("backbone", "precision", "clients", "overlay")}
        over_grpc = _fastest(rows, PATCHSERVE, **case, streams=0)
        if over_grpc:
            load, output = describe_load(row["clients"], None), _OUTPUTS[row["overlay"]]
            name = f"{row['precision']} over HTTP / over gRPC, {row['backbone']}, {output}, {load}"
            yield name, _at_least(row["images_per_second"] / over_grpc, _HTTP_TARGET)


def _tail_latencies(rows: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    """The p99 latency, relative to a fair share: the time to serve every client once."""
    for row in rows:
        if row["system"] == PATCHSERVE and row["clients"] == _TAIL_CLIENTS:
            value = row["p99_fair_shares"]
            output = _OUTPUTS[row["overlay"]]
            name = f"{row['precision']} p99 of {_TAIL_CLIENTS} clients / fair share, {row['backbone']}, {output}"
            yield name, {"value": value, "target": f"at most {_TAIL_TARGET:g}", "met": value <= _TAIL_TARGET}


def _mixed_over_one(mixed: Sequence[Row]) -> Iterator[tuple[str, Ratio]]:
    for row in mixed:
        if row["references"] == MIXED_REFERENCES:
            alike = {name: row[name] for name in ("backbone", "precision")}
            one = _fastest(mixed, PATCHSERVE, references=1, **alike)
            if one:
                name = f"{row['precision']} {MIXED_REFERENCES} references in turn / one, {row['backbone']}"
                yield name, _at_least(row["images_per_second"] / one, _MIXED_TARGET)
