"""The verdicts of a scan as rows of Parquet. docs/scan.md describes the columns: they keep their meaning."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from patchserve_server.domain.inspection import AnomalyScore, Inspection, Region
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.options import ScanOptions
from patchserve_server.scan.reading import ReadImage

ANOMALOUS: Final = "anomalous"
INTACT: Final = "intact"

_POINT: Final = pa.struct([("x_px", pa.int32()), ("y_px", pa.int32())])
_REGION: Final = pa.struct(
    [
        ("x_px", pa.int32()),
        ("y_px", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("area_px", pa.float64()),
        ("area_percentage", pa.float64()),
        ("peak_score", pa.float64()),
        ("polygon", pa.list_(_POINT)),
    ]
)
SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        pa.field("reference_id", pa.string(), nullable=False),
        pa.field("revision", pa.string(), nullable=False),
        ("verdict", pa.string()),
        ("ratio", pa.float64()),
        ("score", pa.float32()),
        ("raw_score", pa.float32()),
        ("raw_threshold", pa.float32()),
        ("anomalous_area_percentage", pa.float64()),
        ("damage_percentage", pa.float64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("regions", pa.list_(_REGION)),
        ("overlay", pa.string()),
        ("error_reason", pa.string()),
        ("error", pa.string()),
        pa.field("inspect_time", pa.timestamp("us", tz="UTC"), nullable=False),
        ("decode_ms", pa.float64()),
        ("embed_ms", pa.float64()),
        ("search_ms", pa.float64()),
    ],
    metadata={"patchserve_scan_format": "1"},
)

Row: TypeAlias = dict[str, Any]


def inspected_row(
    options: ScanOptions, path: str, image: ReadImage, inspection: Inspection, overlay: str | None
) -> Row:
    """The row of an image that has a verdict. `overlay`: the name of the file; None: there is none."""
    verdict, timing = inspection.verdict, inspection.timing
    width_px, height_px = inspection.source_size_px
    return {
        **_row(options, path, image),
        "verdict": ANOMALOUS if verdict.anomaly.is_anomalous else INTACT,
        "ratio": _ratio(verdict.anomaly),
        "score": verdict.anomaly.score,
        "raw_score": verdict.anomaly.raw_score,
        "raw_threshold": verdict.anomaly.raw_threshold,
        "anomalous_area_percentage": verdict.anomaly.anomalous_area_percentage,
        "damage_percentage": verdict.damage.damage_percentage,
        "width_px": width_px,
        "height_px": height_px,
        "regions": [_region(region) for region in inspection.regions],
        "overlay": overlay,
        "decode_ms": timing.decode_ms,
        "embed_ms": timing.embed_ms,
        "search_ms": timing.search_ms,
    }


def _ratio(anomaly: AnomalyScore) -> float:
    """As of the clients: how many times the threshold the image reaches."""
    if anomaly.raw_threshold == 0:
        return math.inf if anomaly.raw_score > 0 else 0.0
    return anomaly.raw_score / anomaly.raw_threshold


def failed_row(options: ScanOptions, path: str, image: ReadImage | None, reason: str, message: str) -> Row:
    """The row of an image that has none. `image`: None: it could not be read."""
    return {**_row(options, path, image), "error_reason": reason, "error": message}


def _row(options: ScanOptions, path: str, image: ReadImage | None) -> Row:
    return {
        "path": path.encode(errors="backslashreplace").decode(),  # a name of a file need not be text
        "size_bytes": None if image is None else len(image.data),
        "sha256": None if image is None else image.sha256,
        "reference_id": options.reference_id,
        "revision": options.revision,
        "inspect_time": datetime.now(UTC),
    }


def _region(region: Region) -> Row:
    box = region.bounding_box
    return {
        "x_px": box.x_px,
        "y_px": box.y_px,
        "width_px": box.width_px,
        "height_px": box.height_px,
        "area_px": region.area_px,
        "area_percentage": region.area_percentage,
        "peak_score": region.peak_score,
        "polygon": [{"x_px": x_px, "y_px": y_px} for x_px, y_px in region.polygon],
    }


def parquet_of(rows: Sequence[Row]) -> bytes:
    """The file of a part."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), file, compression="zstd")
    return file.getvalue()


def counts_of(rows: Iterable[Row]) -> Counts:
    """What rows say, which need to have only the columns that are read here."""
    verdicts, failed, size_bytes = Counter[str](), Counter[str](), 0
    for row in rows:
        if row.get("verdict") is None:
            failed[row["error_reason"]] += 1
        else:
            verdicts[row["verdict"]] += 1
        size_bytes += row["size_bytes"] or 0
    return Counts(verdicts[INTACT], verdicts[ANOMALOUS], dict(failed), size_bytes)


def counts_in(parquet: bytes) -> Counts:
    """What the file of a part says.

    Raises:
        ValueError: it is not one.
    """
    try:
        table = pq.read_table(io.BytesIO(parquet), columns=["verdict", "error_reason", "size_bytes"])
        return counts_of(table.to_pylist())
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError("this is not the file of a part") from error
