"""What a scan is: what its rows depend on. A scan goes on only with the options that it began with."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from patchserve_server.domain.inspection import HeatmapScale, OutputOptions, OverlayFormat

FORMAT_VERSION: Final = 1
DEFAULT_OVERLAY_SIDE_PX: Final = 1280


class Overlays(enum.Enum):
    """Of which images overlays are written."""

    NONE = "none"
    ANOMALOUS = "anomalous"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What is inspected with what.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    source: str  # absolute path or URL
    reference_id: str
    revision: str
    sensitivity: float | None = None  # None: that of the reference
    max_regions: int = 16
    overlays: Overlays = Overlays.NONE
    overlay_format: OverlayFormat = OverlayFormat.JPEG
    overlay_max_side_px: int = DEFAULT_OVERLAY_SIDE_PX  # 0: the image's own size
    white_level: int | None = None  # None: that of the reference
    decode: str = "cpu"  # where JPEGs are decoded: scores depend on it a little

    def __post_init__(self) -> None:
        self.output(overlay=False)

    def output(self, *, overlay: bool) -> OutputOptions:
        """What is computed of an image, with or without an overlay."""
        return OutputOptions(
            overlay=overlay,
            heatmap_scale=HeatmapScale.CALIBRATED,
            max_regions=self.max_regions,
            sensitivity=self.sensitivity,
            overlay_format=self.overlay_format,
            overlay_max_side_px=self.overlay_max_side_px,
        )

    def to_json(self) -> dict[str, Any]:
        values = {name: value.value if isinstance(value, enum.Enum) else value for name, value in asdict(self).items()}
        return {"format_version": FORMAT_VERSION, **values}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ScanOptions:
        """The options of a document of `to_json`.

        Raises:
            KeyError, ValueError: it is none of this version.
        """
        if document["format_version"] != FORMAT_VERSION:
            raise ValueError(f"the format version is {document['format_version']}, not {FORMAT_VERSION}")
        values = {field.name: document[field.name] for field in fields(cls)}
        values["overlays"] = Overlays(values["overlays"])
        values["overlay_format"] = OverlayFormat(values["overlay_format"])
        return cls(**values)


def encoded(options: ScanOptions, more: dict[str, Any]) -> bytes:
    """The file of a scan that begins: its options, and what else is worth knowing."""
    return json.dumps({**options.to_json(), **more}, indent=2).encode()
