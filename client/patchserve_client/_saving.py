"""A result as files and as data for JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchserve_client._verdicts import verdict_word

if TYPE_CHECKING:
    from patchserve_client._types import EncodedOverlay, InferenceResult

_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


def as_dict(result: InferenceResult) -> dict[str, Any]:
    """Like `InferenceResult.to_dict`."""
    overlay = result.encoded_overlay
    ratio = result.anomaly.ratio
    return {
        "verdict": verdict_word(result.anomaly),
        "ratio": ratio if math.isfinite(ratio) else None,  # JSON has no infinity
        "reference_id": result.reference_id,
        "reference_revision": result.reference_revision,
        "anomaly": dataclasses.asdict(result.anomaly),
        "damage": dataclasses.asdict(result.damage),
        "regions": [dataclasses.asdict(region) for region in result.regions],
        "overlay": None if overlay is None else _without_pixels(overlay),
        "timing": dataclasses.asdict(result.timing),
    }


def _without_pixels(overlay: EncodedOverlay) -> dict[str, Any]:
    fields = (field.name for field in dataclasses.fields(overlay) if field.name != "data")
    return {name: getattr(overlay, name) for name in fields}


def save(result: InferenceResult, folder: Path, name: str) -> list[Path]:
    """Like `InferenceResult.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json"]
    files[0].write_text(json.dumps(as_dict(result), indent=2) + "\n")
    if (overlay := result.encoded_overlay) is not None:
        files.append(folder / f"{name}_overlay{_SUFFIXES.get(overlay.media_type, '.png')}")
        files[-1].write_bytes(overlay.data)
    if result.score_map is not None:
        import numpy as np  # noqa: PLC0415 - loaded on first use

        files.append(folder / f"{name}_score_map.npy")
        np.save(files[-1], result.score_map)
    return files
