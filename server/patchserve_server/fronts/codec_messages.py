"""What a front and an engine say to each other about files that the engine's device decodes and draws on.

| bytes of a drawing | what |
| --- | --- |
| height x width | heat levels |
| 8 for each point | the points of all outlines, as (x, y) of 32 bits |
| | the file |
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import numpy as np

from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.fronts.frames import Head

_POINT_BYTES: Final = 8


def file_head(file: JpegFile) -> dict[str, Any]:
    """What the engine needs to know of a file, beside its bytes."""
    return {"size": file.stored_size_px, "orientation": file.orientation}


def file_from(head: dict[str, Any], data: bytes) -> JpegFile:
    """The file of these bytes."""
    width, height = head["size"]
    return JpegFile(data, (width, height), head["orientation"])


def undone(error: DeviceCodecError) -> Head:
    """The answer when the device cannot do it. The front's CPU does it then: it is no failure of the engine."""
    return {"undone": str(error)}


def raise_if_undone(answer: Head) -> None:
    """Raise what `undone` says.

    Raises:
        DeviceCodecError: the device cannot do it.
    """
    if "undone" in answer:
        raise DeviceCodecError(answer["undone"])


def drawing_message(drawing: OverlayDrawing) -> tuple[Head, bytes]:
    """A drawing, but for the request that it is part of."""
    head: Head = {
        "file": file_head(drawing.file),
        "levels": drawing.heat_levels.shape,
        "scale": drawing.scale.value,
        "size": drawing.size_px,
        "outlines": [len(outline) for outline in drawing.outlines],
    }
    points = np.array(list(itertools.chain.from_iterable(drawing.outlines)), "<i4")
    return head, drawing.heat_levels.tobytes() + points.tobytes() + drawing.file.data


def drawing_from(head: Head, body: bytes) -> OverlayDrawing:
    """The drawing of a message."""
    points_at = math.prod(head["levels"])
    file_at = points_at + _POINT_BYTES * sum(head["outlines"])
    points = iter(np.frombuffer(body[points_at:file_at], "<i4").reshape(-1, 2).tolist())
    width, height = head["size"]
    return OverlayDrawing(
        file_from(head["file"], body[file_at:]),
        np.frombuffer(body, np.uint8, points_at).reshape(head["levels"]),
        HeatmapScale(head["scale"]),
        (width, height),
        tuple(tuple((x, y) for x, y in itertools.islice(points, count)) for count in head["outlines"]),
    )
