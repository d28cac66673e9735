"""The table of `patchserve reference list`."""

from __future__ import annotations

from patchserve_client import ReferenceInfo
from patchserve_client.cli._input_options import input_text

REFERENCE_TITLES = [
    "id",
    "images",
    "patches",
    "profile",
    "input",
    "sensitivity",
    "raw threshold",
    "bank MiB",
    "updated",
    "revision",
]


def reference_cells(reference: ReferenceInfo) -> list[str]:
    """The cells of REFERENCE_TITLES."""
    return [
        reference.reference_id,
        str(reference.image_count),
        str(reference.patch_count),
        reference.profile or "unknown",
        input_text(reference),
        f"{reference.sensitivity:g}",
        f"{reference.threshold:.4g}",
        f"{reference.bank_bytes / 2**20:.1f}",
        f"{reference.update_time:%Y-%m-%d %H:%M:%SZ}",
        reference.revision[:12],
    ]
