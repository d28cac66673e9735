"""`patchserve reference load|loads|list|show|delete`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from patchserve_client import LoadMode, LoadProgress, ReferenceInfo
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._image_files import images_in
from patchserve_client.cli._load_bar import load_shown
from patchserve_client.cli._loading import (
    ApproximateSearch,
    CoresetMaxPatches,
    CoresetRatio,
    Profile,
    Regions,
    SearchRadius,
    check_coreset,
    polygon,
    polygon_text,
    refused_file_named,
)
from patchserve_client.cli._output import say, say_json, say_table

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
        bool, typer.Option("--append", help="Add to the images that are there instead of replacing them.")
    ] = False,
    profile: Profile = None,
    coreset_ratio: CoresetRatio = None,
    coreset_max_patches: CoresetMaxPatches = None,
    search_radius: SearchRadius = None,
    regions: Regions = None,
    approximate_search: ApproximateSearch = False,
) -> None:
    """Load images of undamaged items, files or folders, as a reference.

    Returns when the reference serves.
    """
    check_coreset(coreset_ratio, coreset_max_patches)
    polygons = [polygon(text) for text in regions or ()]
    files = images_in(paths)
    with (
        settings.client() as client,
        refused_file_named(files),
        load_shown(client, reference_id, files) as images,
    ):
        loaded = client.load_reference(
            images,
            reference_id,
            mode=LoadMode.APPEND if append else LoadMode.REPLACE,
            profile=profile,
            coreset_ratio=coreset_ratio,
            coreset_max_patches=coreset_max_patches,
            search_radius=search_radius,
            region_of_interest=polygons,
            approximate_search=approximate_search or None,
        )
    say(
        f"Loaded {loaded.reference_id}: {loaded.image_count} images, {loaded.patch_count} patches, "
        f"threshold {loaded.threshold:.4g}, revision {loaded.revision[:12]}"
    )


@app.command()
@connected
def loads(settings: Settings, as_json: _Json = False) -> None:
    """List what is being loaded now, and how far it is."""
    with settings.client() as client:
        under_way = client.list_loads()
    if as_json:
        say_json([dataclasses.asdict(load) for load in under_way])
        return
    if not under_way:
        say("Nothing is being loaded.")
        return
    titles = ["id", "stage", "steps", "images", "started"]
    say_table(titles, [_load_cells(load) for load in under_way])


def _load_cells(load: LoadProgress) -> list[str]:
    return [
        load.reference_id,
        load.stage or "unknown",
        f"{load.steps_done}/{load.steps_total or '?'}",
        str(load.image_count),
        f"{load.start_time:%Y-%m-%d %H:%M:%SZ}",
    ]


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
    titles = ["id", "images", "patches", "profile", "threshold", "MiB", "updated", "revision"]
    say_table(titles, [_cells(reference) for reference in references])


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
    facts["region_of_interest"] = "; ".join(map(polygon_text, facts["region_of_interest"]))
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
