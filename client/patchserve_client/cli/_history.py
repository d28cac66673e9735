"""`patchserve reference history`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from patchserve_client import KeptRevision
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._formats import TEXT, OutputOption, columns_of, print_results
from patchserve_client.cli._output import print_table

_TITLES = ["revision", "in use", "made", "by", "images", "sensitivity", "raw threshold"]


def history(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to show.")] = "default",
    output: OutputOption = TEXT,
) -> None:
    """List the revisions of a reference that the server keeps: the one in use, and the one that `restore` puts back."""
    with settings.client() as client:
        revisions = client.reference_history(reference_id)
    if output is not TEXT:
        print_results(output, list(map(dataclasses.asdict, revisions)), columns=columns_of(KeptRevision))
        return
    print_table(_TITLES, [_cells(revision) for revision in revisions])


def _cells(revision: KeptRevision) -> list[str]:
    reference = revision.reference
    return [
        reference.revision[:12],
        "yes" if revision.is_current else "no",
        f"{reference.update_time:%Y-%m-%d %H:%M:%SZ}",
        revision.operation or "not known",
        str(reference.image_count),
        f"{reference.sensitivity:g}",
        f"{reference.threshold:.4g}",
    ]
