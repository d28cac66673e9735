"""A hint for references whose long images were squeezed into squares and then cut into tiles."""

from __future__ import annotations

from patchserve_client import AspectRatio, Client, ReferenceInfo
from patchserve_client.cli._false_alarms import percent

_LONG = 2.0  # from this ratio of the sides, an image is much longer than wide


def squeezed_tiles_note(loaded: ReferenceInfo, client: Client) -> str | None:
    """A note if tiles show stretched images; the server is asked for their sizes."""
    if loaded.tile_px is None or loaded.aspect is not AspectRatio.SQUEEZE:
        return None
    for image in client.get_reference(loaded.reference_id).images:
        shorter, longer = sorted((image.width_px, image.height_px))
        if shorter and longer >= _LONG * shorter:
            return (
                f"Note: Images of {image.width_px} x {image.height_px} px became squares of {loaded.input_width_px} x "
                f"{loaded.input_height_px} px: this distorts damage and wastes {percent(1 - shorter / longer)} of the "
                "work. --aspect keep keeps their proportions."
            )
    return None
