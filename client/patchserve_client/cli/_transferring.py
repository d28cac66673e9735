"""`patchserve reference export|import|copy`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from patchserve_client import ReferenceInfo
from patchserve_client._counted import counted
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._formats import TEXT, OutputFormat, OutputOption, columns_of, print_results
from patchserve_client.cli._output import print_line
from patchserve_client.cli._paths import EXISTING_FILE, NEW_FILE

ENDING = ".patchserve"


def export(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to export.")] = "default",
    path: Annotated[
        Path | None, typer.Argument(**NEW_FILE, metavar="FILE", help=f"File to write.  [default: ID{ENDING}]")
    ] = None,
    *,
    output: OutputOption = TEXT,
) -> None:
    """Write a reference to one file, which any server with the same backbone, weights and precision can import.

    The file has the images of the reference, as the backbone saw them.
    """
    path = Path(f"{reference_id}{ENDING}") if path is None else path
    with settings.client() as client:
        exported = client.export_reference(reference_id, path)
    if output is not TEXT:
        print_results(output, {"file": str(path), "reference": dataclasses.asdict(exported)})
        return
    size_mib = path.stat().st_size / 2**20
    print_line(f"Exported {_text(exported)} to {path}, {size_mib:.1f} MiB")


def import_(
    settings: Settings,
    path: Annotated[Path, typer.Argument(**EXISTING_FILE, metavar="FILE", help="File of `reference export`.")],
    *,
    reference_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="Name of the reference.  [default: the one that it had]")
    ] = "",
    output: OutputOption = TEXT,
) -> None:
    """Take a reference from a file of `reference export`. Returns when the server uses it.

    An existing reference of this name is replaced; `reference restore` puts it back.
    """
    with settings.client() as client:
        imported = client.import_reference(path, reference_id)
    _print("Imported", imported, output=output)


def copy(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to copy.")],
    new_id: Annotated[
        str, typer.Argument(metavar="NEW_ID", help="Name of the copy.  [default: with --to the same name]")
    ] = "",
    *,
    to: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Another server, with the same connection options.")
    ] = "",
    output: OutputOption = TEXT,
) -> None:
    """Copy a reference to another name, or to another server with the same backbone, weights and precision.

    An existing reference of this name is replaced; `reference restore` puts it back.
    """
    if not to and new_id in ("", reference_id):
        raise typer.BadParameter("Give the copy another name, or say with --to to which server it goes.")
    with ExitStack() as stack:
        client = stack.enter_context(settings.client())
        target = stack.enter_context(dataclasses.replace(settings, server=to).client()) if to else None
        copied = client.copy_reference(reference_id, new_id or reference_id, to=target)
    _print("Copied", copied, output=output)


def _print(done: str, reference: ReferenceInfo, *, output: OutputFormat) -> None:
    if output is not TEXT:
        print_results(output, dataclasses.asdict(reference), columns=columns_of(ReferenceInfo))
        return
    print_line(f"{done} {_text(reference)}")


def _text(reference: ReferenceInfo) -> str:
    return (
        f"{reference.reference_id}: {counted(reference.image_count, 'image')}, raw threshold "
        f"{reference.threshold:.4g}, revision {reference.revision[:12]}"
    )
