"""`patchserve reference`: everything that lists, shows and changes references."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from patchserve_client import LoadMode, LoadOptions, LoadProgress, ReferenceInfo, ScoringProfile
from patchserve_client._counted import counted
from patchserve_client.cli._capture import CaptureCountOption, CaptureEveryOption, KeepOption, captured_files
from patchserve_client.cli._commands import Command, Group
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._cost import cost_text
from patchserve_client.cli._drift_text import drift_text
from patchserve_client.cli._false_alarms import expected_false_alarms, false_alarms_note
from patchserve_client.cli._few_images import few_images_note
from patchserve_client.cli._formats import TEXT, OutputFormat, OutputOption, columns_of, print_results
from patchserve_client.cli._histogram import print_histogram
from patchserve_client.cli._history import history
from patchserve_client.cli._image_files import STDIN, ImagesArgument, images_in, read_image
from patchserve_client.cli._input_options import input_text
from patchserve_client.cli._load_progress import shown_load
from patchserve_client.cli._loading import (
    COMPARISON_PANEL,
    DEFAULT_PROFILE,
    polygon,
    polygon_text,
    rejected_file_named,
    takes_load_options,
)
from patchserve_client.cli._output import print_facts, print_line, print_note, print_table
from patchserve_client.cli._reference_images import TITLES, cells, summary
from patchserve_client.cli._reference_table import REFERENCE_TITLES, reference_cells
from patchserve_client.cli._restoring import restore
from patchserve_client.cli._saved_reference_images import images
from patchserve_client.cli._skipping import Skipped, load_usable
from patchserve_client.cli._squeezed_tiles import squeezed_tiles_note
from patchserve_client.cli._transferring import copy, export, import_
from patchserve_client.cli._verdict_options import SENSITIVITY
from patchserve_client.cli._video_frames import CountOption, EveryOption, frames_as_files

app = typer.Typer(
    cls=Group,
    help="Load, capture, list, show, tune, restore, copy, export, import and delete references.\n\n"
    "A reference is a named set of images of undamaged items.",
    rich_markup_mode=None,
)


IdOption = Annotated[str, typer.Option("--id", metavar="ID", help="Name of the reference.")]
AppendOption = Annotated[
    bool, typer.Option("--append", help="Add to the images of the reference instead of replacing them.")
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        **COMPARISON_PANEL,
        metavar="POLYGON",
        help="Region of interest: only pixels inside count. Corners as shares of width and height, for "
        'example "0.1,0 0.9,0 0.9,1 0.1,1". May be repeated.',
    ),
]
SensitivityOption = Annotated[
    float | None,
    typer.Option(
        **SENSITIVITY,
        help="Sensitivity of the reference, as `reference tune` sets it.  [default: 1; with --append unchanged]",
    ),
]


@app.command(cls=Command)
@connected
@takes_load_options
def load(
    settings: Settings,
    paths: ImagesArgument,
    *,
    reference_id: IdOption = "default",
    append: AppendOption = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that cannot be used, and say which and why.")
    ] = False,
    output: OutputOption = TEXT,
    count: CountOption = None,
    every: EveryOption = None,
    options: LoadOptions,
    regions: RegionOption = None,
    sensitivity: SensitivityOption = None,
) -> None:
    """Load images of undamaged items as a reference. A video file counts as some of its frames.

    Returns when the server uses the reference.
    """
    _complete(options, regions, sensitivity, append=append)
    with frames_as_files(images_in(paths), count, every) as files:
        _load_files(settings, files, reference_id, options, skip_bad=skip_bad, output=output)


@app.command(cls=Command)
@connected
@takes_load_options
def capture(
    settings: Settings,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A video file, the index of a camera, or the URL of a stream.")
    ],
    *,
    count: CaptureCountOption = 30,
    every: CaptureEveryOption = 2.0,
    out: KeepOption = None,
    reference_id: IdOption = "default",
    append: AppendOption = False,
    output: OutputOption = TEXT,
    options: LoadOptions,
    regions: RegionOption = None,
    sensitivity: SensitivityOption = None,
) -> None:
    """Make a reference from what will be inspected: frames of a camera while undamaged items pass.

    It then has the camera, compression and light of `patchserve stream SOURCE`.
    """
    _complete(options, regions, sensitivity, append=append)
    with settings.client() as client:  # before minutes of waiting for frames that could not be loaded
        limit = client.server_info().limits.max_reference_images
    if count > limit:
        raise typer.BadParameter(f"--count must be at most {limit}, the server's limit for a load.")
    with captured_files(source, count, every, out) as files:
        _load_files(settings, files, reference_id, options, skip_bad=False, output=output)


def _complete(options: LoadOptions, regions: list[str] | None, sensitivity: float | None, *, append: bool) -> None:
    """Add what `evaluate`, which has the other options too, does not have."""
    if options["profile"] is None and not append:
        options["profile"] = DEFAULT_PROFILE
    options["mode"] = LoadMode.APPEND if append else LoadMode.REPLACE
    options["region_of_interest"] = [polygon(text) for text in regions or ()]
    options["sensitivity"] = sensitivity


def _load_files(
    settings: Settings,
    files: list[Path],
    reference_id: str,
    options: LoadOptions,
    *,
    skip_bad: bool,
    output: OutputFormat,
) -> None:
    standard_input = read_image(STDIN) if STDIN in files else b""  # only once: --skip-bad may load again
    skipped: list[Skipped] = []

    def load_files(usable: list[Path]) -> ReferenceInfo:
        contents = [standard_input if file == STDIN else file for file in usable]
        with shown_load(client, reference_id, contents) as images:
            return client.load_reference(images, reference_id, **options)

    def skip(one: Skipped) -> None:
        skipped.append(one)
        print_note(f"Skipped {one.file}: {one.problem}")

    with settings.client() as client:
        if skip_bad:
            loaded = load_usable(load_files, files, skip)
        else:
            with rejected_file_named(files):
                loaded = load_files(files)
        squeezed = squeezed_tiles_note(loaded, client)
    for note in (few_images_note(loaded), false_alarms_note(loaded), squeezed):
        if note is not None:
            print_note(note)
    if output is not TEXT:
        facts = dataclasses.asdict(loaded)
        document = {"reference": facts, "skipped": [one.as_json() for one in skipped]}
        print_results(output, document, [facts], columns=columns_of(ReferenceInfo))
        return
    left_out = f"; skipped {counted(len(skipped), 'file')}" if skipped else ""
    print_line(
        f"Loaded {loaded.reference_id}: {counted(loaded.image_count, 'image')}{_views_text(loaded)}, "
        f"{_size_text(loaded)}, input {input_text(loaded, ' px')}, raw threshold {loaded.threshold:.4g}, "
        + (f"false alarms {expected}, " if (expected := expected_false_alarms(loaded)) is not None else "")
        + f"revision {loaded.revision[:12]}{left_out}"
    )
    if (cost := loaded.cost) is not None:
        print_line(f"Cost: {cost_text(cost)}")


def _views_text(reference: ReferenceInfo) -> str:
    """Only if the bank has copies of the images: as in " (8 views of each)"."""
    views = reference.views_per_image or 1
    return "" if views == 1 else f" ({views} views of each)"


def _size_text(reference: ReferenceInfo) -> str:
    if reference.profile is ScoringProfile.SUBSPACE:  # its vectors are no patches
        return counted(reference.patch_count, "vector")
    return counted(reference.patch_count, "patch", "patches")


@app.command(cls=Command)
@connected
def loads(settings: Settings, output: OutputOption = TEXT) -> None:
    """List the active loads and their progress."""
    with settings.client() as client:
        active_loads = client.list_loads()
    if output is not TEXT:
        print_results(output, list(map(dataclasses.asdict, active_loads)), columns=columns_of(LoadProgress))
    elif not active_loads:
        print_line("There are no active loads.")
    else:
        print_table(["id", "stage", "steps", "images", "started"], [_load_cells(load) for load in active_loads])


def _load_cells(load: LoadProgress) -> list[str]:
    return [
        load.reference_id,
        load.stage or "unknown",
        f"{load.steps_done}/{load.steps_total or '?'}",
        str(load.image_count),
        f"{load.start_time:%Y-%m-%d %H:%M:%SZ}",
    ]


@app.command("list", cls=Command)
@connected
def list_(settings: Settings, output: OutputOption = TEXT) -> None:
    """List the references on the server."""
    with settings.client() as client:
        references = list(client.list_references())
    if output is not TEXT:
        print_results(output, list(map(dataclasses.asdict, references)), columns=columns_of(ReferenceInfo))
    elif not references:
        print_line("The server has no references. Load one with `patchserve reference load FILE|DIR...`.")
    else:
        print_table(REFERENCE_TITLES, list(map(reference_cells, references)))


@app.command(cls=Command)
@connected
def show(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to show.")] = "default",
    output: OutputOption = TEXT,
) -> None:
    """Show everything about a reference, and the images that it was built from."""
    with settings.client() as client:
        reference = client.get_reference(reference_id)
    facts = dataclasses.asdict(reference)
    if output is not TEXT:
        print_results(output, facts, columns=columns_of(ReferenceInfo))
        return
    del facts["cost"]  # only a load measures it
    facts["drift"] = drift_text(reference.drift)
    facts["images"] = summary(reference.images)
    calibration = facts.pop("calibration")
    normal_scores = calibration.pop("normal_scores")
    del normal_scores["scores"]
    facts["region_of_interest"] = "; ".join(map(polygon_text, facts["region_of_interest"]))
    del calibration["false_alarm_rate"], calibration["false_alarm_rate_upper"]
    facts |= {f"calibration.{name}": value for name, value in calibration.items()}
    facts["calibration.false_alarms"] = expected_false_alarms(reference) or "not known"
    facts |= {f"normal_scores.{name}": value for name, value in normal_scores.items()}
    print_facts(facts)
    if (note := false_alarms_note(reference)) is not None:
        print_note(note)
    print_histogram(reference)
    if reference.images:
        print_line("")
        print_table(TITLES, cells(reference.images))


app.command(cls=Command)(connected(images))


@app.command(cls=Command)
@connected
def tune(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to tune.")],
    sensitivity: Annotated[
        float,
        typer.Option(
            **SENSITIVITY,
            help="Divide the calibrated thresholds by S: above 1 finds more, 1 restores them.",
        ),
    ],
    output: OutputOption = TEXT,
) -> None:
    """Set the sensitivity of a reference, for all requests that set none.

    Its images stay. The result is a new revision; streams that are open keep theirs.
    """
    with settings.client() as client:
        tuned = client.tune_reference(reference_id, sensitivity)
    if output is not TEXT:
        print_results(output, dataclasses.asdict(tuned), columns=columns_of(ReferenceInfo))
        return
    print_line(
        f"Tuned {tuned.reference_id}: sensitivity {tuned.sensitivity:g}, raw threshold {tuned.threshold:.4g}, "
        f"revision {tuned.revision[:12]}"
    )


app.command(cls=Command)(connected(history))
app.command(cls=Command)(connected(restore))
app.command(cls=Command)(connected(export))
app.command("import", cls=Command)(connected(import_))
app.command(cls=Command)(connected(copy))


@app.command(cls=Command)
@connected
def delete(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference to delete.")],
    output: OutputOption = TEXT,
) -> None:
    """Delete a reference from the server."""
    with settings.client() as client:
        revision = client.delete_reference(reference_id)
    if output is not TEXT:
        print_results(output, {"reference_id": reference_id, "revision": revision})
        return
    known = f", revision {revision[:12]}" if revision else ""  # that of a damaged one is not known
    print_line(f"Deleted {reference_id}{known}")
