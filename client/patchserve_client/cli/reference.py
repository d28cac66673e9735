"""`patchserve reference load|list|show|delete`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from patchserve_client import InvalidArgument, LoadMode, ReferenceInfo, ScoringProfile
from patchserve_client.cli._connection import Settings, connected, fail
from patchserve_client.cli._output import Table, progress, say, say_json
from patchserve_client.cli._pictures import pictures_in

app = typer.Typer(
    help="Load, list, show and delete references: sets of undamaged items.", no_args_is_help=True, rich_markup_mode=None
)
_Json = Annotated[bool, typer.Option("--json", help="Print a JSON document.")]
_Id = Annotated[str, typer.Argument(metavar="ID")]


@app.command()
@connected
def load(
    settings: Settings,
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR", exists=True)],
    *,
    reference_id: Annotated[str, typer.Option("--id", metavar="ID", help="The name of the reference.")] = "default",
    append: Annotated[
        bool, typer.Option("--append", help="Add to the pictures that are there instead of replacing them.")
    ] = False,
    profile: Annotated[
        ScoringProfile | None, typer.Option(help="How the reference scores.  [default: notebook]")
    ] = None,
    coreset_ratio: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Keep this share of all patches.")
    ] = None,
    coreset_max_patches: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep at most so many patches.")
    ] = None,
) -> None:
    """Load pictures of undamaged items, files or folders, as a reference.

    Returns when the reference serves.
    """
    if coreset_ratio is not None and coreset_max_patches is not None:
        raise typer.BadParameter("--coreset-ratio and --coreset-max-patches exclude each other.")
    if coreset_ratio == 0:
        raise typer.BadParameter("--coreset-ratio is above 0.")
    files = pictures_in(paths)
    with settings.client() as client, progress(f"Loading {len(files)} pictures", len(files)) as step:
        try:
            loaded = client.load_reference(
                _counted(files, step),
                reference_id,
                mode=LoadMode.APPEND if append else LoadMode.REPLACE,
                profile=profile,
                coreset_ratio=coreset_ratio,
                coreset_max_patches=coreset_max_patches,
            )
        except InvalidArgument as error:
            refused = _refused_file(error, files)
            if refused is None:
                raise
            fail(f"{refused}: {error.message} Nothing was loaded. ({error.reason})")
    say(
        f"Loaded {loaded.reference_id}: {loaded.image_count} pictures, {loaded.patch_count} patches, "
        f"threshold {loaded.threshold:.4g}, revision {loaded.revision[:12]}"
    )


def _counted(files: list[Path], step: Callable[[], None]) -> Iterator[Path]:
    for file in files:
        yield file
        step()


def _refused_file(error: InvalidArgument, files: list[Path]) -> Path | None:
    """The file that the server means by `images[3]`."""
    for violation in error.field_violations:
        place = re.fullmatch(r"images\[(\d+)\]", violation.field)
        if place and int(place[1]) < len(files):
            return files[int(place[1])]
    return None


@app.command("list")
@connected
def list_(settings: Settings, as_json: _Json = False) -> None:
    """List the references on the server."""
    with settings.client() as client:
        references = list(client.list_references())
    if as_json:
        say_json([dataclasses.asdict(reference) for reference in references])
        return
    if not references:
        say("The server holds no reference. Load one with `patchserve reference load FILE|DIR...`.")
        return
    titles = ["id", "pictures", "patches", "profile", "threshold", "MiB", "updated", "revision"]
    rows = [_cells(reference) for reference in references]
    table = Table.fitting(titles, rows)
    for row in rows:
        table.row(row)


def _cells(reference: ReferenceInfo) -> list[str]:
    return [
        reference.reference_id,
        str(reference.image_count),
        str(reference.patch_count),
        reference.profile or "unknown",
        f"{reference.threshold:.4g}",
        f"{reference.bank_bytes / 2**20:.1f}",
        f"{reference.update_time:%Y-%m-%d %H:%M:%SZ}",
        reference.revision[:12],
    ]


@app.command()
@connected
def show(settings: Settings, reference_id: _Id = "default", as_json: _Json = False) -> None:
    """Tell everything about one reference."""
    with settings.client() as client:
        facts = dataclasses.asdict(client.get_reference(reference_id))
    if as_json:
        say_json(facts)
        return
    calibration = facts.pop("calibration")
    normal_scores = calibration.pop("normal_scores")
    for name, value in {
        **facts,
        **{f"calibration.{name}": value for name, value in calibration.items()},
        **{f"normal_scores.{name}": value for name, value in normal_scores.items()},
    }.items():
        say(f"{name:<27} {'-' if value in ('', None) else value}")


@app.command()
@connected
def delete(settings: Settings, reference_id: Annotated[str, typer.Argument(metavar="ID", help="Which one.")]) -> None:
    """Remove a reference from the server."""
    with settings.client() as client:
        revision = client.delete_reference(reference_id)
    say(f"Deleted {reference_id}, revision {revision[:12]}")
