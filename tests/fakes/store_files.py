"""The files of a store folder."""

from __future__ import annotations

from pathlib import Path

from patchserve_server.domain.reference import Reference


def files_in(root: Path) -> set[str]:
    """All files in a folder, by their relative paths, without the lock of the store."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()} - {".lock"}


def files_of(*references: Reference | None) -> set[str]:
    """The files of a store that contains these references and nothing else."""
    return {
        f"{reference.reference_id}/{name}"
        for reference in references
        if reference
        for name in (
            "current.json",
            f"{reference.revision}/bank.safetensors",
            f"{reference.revision}/manifest.json",
        )
    }
