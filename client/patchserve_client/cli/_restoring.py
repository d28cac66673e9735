"""`patchserve reference restore`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from patchserve_client import Client, ReferenceInfo
from patchserve_client._counted import counted
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._formats import TEXT, OutputOption, columns_of, print_results
from patchserve_client.cli._output import print_line

_REVISION_LENGTH = 64


def restore(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to restore.")] = "default",
    *,
    revision: Annotated[
        str,
        typer.Option(metavar="REVISION", help="Fail unless it is this one that is put back. Its beginning is enough."),
    ] = "",
    expected_revision: Annotated[
        str,
        typer.Option(metavar="REVISION", help="Fail unless this one is in use now. Its beginning is enough."),
    ] = "",
    output: OutputOption = TEXT,
) -> None:
    """Undo the last change of a reference: put the revision back that was in use before.

    The server keeps one, and now keeps the one that was in use: a second `restore` undoes the first. Streams that are
    open keep theirs.
    """
    with settings.client() as client:
        revision, expected_revision = _whole(client, reference_id, revision, expected_revision)
        restored = client.restore_reference(reference_id, revision=revision, expected_revision=expected_revision)
    if output is not TEXT:
        print_results(output, dataclasses.asdict(restored), columns=columns_of(ReferenceInfo))
        return
    print_line(
        f"Restored {restored.reference_id}: {counted(restored.image_count, 'image')}, sensitivity "
        f"{restored.sensitivity:g}, raw threshold {restored.threshold:.4g}, revision {restored.revision[:12]}"
    )


def _whole(client: Client, reference_id: str, *beginnings: str) -> list[str]:
    """The revisions of the reference that begin so. An empty one stays empty.

    Raises:
        typer.BadParameter: none begins so.
    """
    if all(len(beginning) in (0, _REVISION_LENGTH) for beginning in beginnings):
        return list(beginnings)
    reference = client.get_reference(reference_id)
    known = ["", reference.revision, reference.previous_revision]
    found = [next((one for one in known if one.startswith(beginning)), None) for beginning in beginnings]
    if None in found:
        kept = f" and keeps {known[2][:12]}" if known[2] else " and keeps no other"
        raise typer.BadParameter(
            f"No revision of {reference_id} begins with {beginnings[found.index(None)]}: it is at "
            f"{reference.revision[:12]}{kept}."
        )
    return [one or "" for one in found]
