"""The wall as JSON and as server-sent events. Field names are written as in the contract."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from patchserve_server.domain.events import InspectionFailed, Origin
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.serving.engine_ports import References
from patchserve_server.serving.wall import ReferenceChange, Score, Tile, WallSnapshot, WatcherUpdate

_RETRY_MS: Final = 2000  # when a browser connects again


def snapshot_event(snapshot: WallSnapshot, catalog: References, event_id: str) -> bytes:
    """The event `snapshot`: what a watcher sees at first."""
    data = {
        "tiles": [_tile(tile) for tile in snapshot.tiles],
        "references": [
            _reference(reference_id, catalog.find(reference_id)) | {"scores": _columns(scores)}
            for reference_id, scores in snapshot.scores.items()
        ],
        "now_ms": round(time.time() * 1000),
        "watchers": snapshot.watchers,
        "missed": snapshot.missed,
    }
    return f"retry: {_RETRY_MS}\n".encode() + _event("snapshot", data, event_id)


def update_event(update: WatcherUpdate, event_id: str) -> bytes:
    """The event `update`: what happened since the last event."""
    data = {
        "tiles": [_tile(tile) for tile in update.tiles],
        "failures": [_failure(failure) for failure in update.failures],
        "changes": [_change(change) for change in update.changes],
        "inspected": update.inspected,
        "failed": update.failed,
        "refused": update.refused,
        "not_shown": update.not_shown,
    }
    return _event("update", data, event_id)


def error_event(status: dict[str, Any]) -> bytes:
    """The event `error`, the last one: a google.rpc.Status as JSON."""
    return _event("error", status, "")


def score_json(score: Score) -> dict[str, Any]:
    return {
        "time_ms": round(score.time_s * 1000),
        "reference_revision": score.revision,
        "raw_score": score.raw_score,
        "raw_threshold": score.raw_threshold,
        "is_anomalous": score.raw_score > score.raw_threshold,
    }


def _columns(scores: Sequence[Score]) -> dict[str, Any]:
    """Scores in columns, which are a quarter as long. `revision` counts in `revisions`."""
    revisions = list(dict.fromkeys(score.revision for score in scores))
    return {
        "time_ms": [round(score.time_s * 1000) for score in scores],
        "raw_score": [score.raw_score for score in scores],
        "raw_threshold": [score.raw_threshold for score in scores],
        "total_ms": [round(score.total_ms, 1) for score in scores],
        "revision": [revisions.index(score.revision) for score in scores],
        "revisions": revisions,
    }


def _tile(tile: Tile) -> dict[str, Any]:
    inspection = tile.inspection
    anomaly = inspection.verdict.anomaly
    width_px, height_px = inspection.source_size_px
    return {
        "id": tile.tile_id,
        "number": tile.number,
        "time_ms": round(tile.time_s * 1000),
        **_origin(tile.origin),
        "reference_id": inspection.reference_id,
        "reference_revision": inspection.reference_revision,
        "is_anomalous": anomaly.is_anomalous,
        "raw_score": anomaly.raw_score,
        "raw_threshold": anomaly.raw_threshold,
        "region_count": len(inspection.regions),
        "total_ms": round(inspection.timing.total_ms, 1),
        "width_px": width_px,
        "height_px": height_px,
        "is_kept": tile.is_kept,
        "thumbnail": base64.b64encode(tile.thumbnail).decode(),
    }


def _origin(origin: Origin) -> dict[str, Any]:
    return {"client": origin.client, "name": origin.name, "is_frame": origin.is_frame}


def _failure(failure: InspectionFailed) -> dict[str, Any]:
    return _origin(failure.origin) | {
        "reference_id": failure.reference_id,
        "reason": failure.reason,
        "message": failure.message,
    }


def _change(change: ReferenceChange) -> dict[str, Any]:
    return _reference(change.reference_id, change.reference)


def _reference(reference_id: ReferenceId, reference: ReferenceInfo | None) -> dict[str, Any]:
    """A reference in short; without a revision if there is none."""
    if reference is None:
        return {"reference_id": reference_id, "revision": ""}
    return {
        "reference_id": reference_id,
        "revision": reference.revision,
        "threshold": reference.thresholds().image_threshold,
        "image_count": reference.image_count,
    }


def _event(name: str, data: dict[str, Any], event_id: str) -> bytes:
    id_line = f"id: {event_id}\n" if event_id else ""
    return f"event: {name}\n{id_line}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
