"""`patchserve evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchserve_client import LoadOptions
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._evaluation_plan import Plan
from patchserve_client.cli._failures import fail
from patchserve_client.cli._formats import TEXT, OutputOption
from patchserve_client.cli._loading import DEFAULT_PROFILE, takes_load_options
from patchserve_client.cli._paths import EXISTING_FOLDER, NEW_FILE, NEW_FOLDER
from patchserve_client.cli._sweep_options import SweptValues, takes_sweep_options

_PACKAGES_OF_THE_EXTRA = {"jinja2", "matplotlib", "scipy", "sklearn"}


@connected
@takes_load_options
@takes_sweep_options
def evaluate(
    settings: Settings,
    dataset: Annotated[
        Path, typer.Argument(**EXISTING_FOLDER, metavar="DATASET", help="Folder in the layout of MVTec AD.")
    ],
    *,
    reference: Annotated[
        str, typer.Option(metavar="ID", help="Name of the reference that is loaded from train/good.")
    ] = "evaluation",
    references: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Load only the first N images, by name.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Choose the images of --references at random with this seed.")
    ] = None,
    options: LoadOptions,
    sweep: SweptValues | None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the reference on the server afterwards.")] = False,
    output: OutputOption = TEXT,
    out: Annotated[
        Path | None,
        typer.Option(
            **NEW_FOLDER,
            metavar="DIR",
            help="Folder for numbers.json and the plots roc.png, scores.png and mistakes.png; with --sweep sweep.png.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            **NEW_FILE, metavar="FILE", help="Write everything, with plots and pictures, as one HTML file to mail."
        ),
    ] = None,
    damage: Annotated[
        bool, typer.Option("--damage", help="Also measure the notebook's damage percentage, which is not a verdict.")
    ] = False,
) -> None:
    """Measure how good the verdicts are on labeled images.

    Loads DATASET/train/good as a new reference, inspects DATASET/test/good and DATASET/test/<defect>, and compares with
    the masks in DATASET/ground_truth/<defect>/<stem>_mask.png, if there are any. With --sweep, it does so with many
    settings and says which to use; Ctrl-C ends it with what was measured. Requires scikit-learn and Matplotlib: pip
    install ".[evaluate]" in a checkout.

    Exit codes: 0 every image was inspected; 1 an image, a setting or the server failed; 2 wrong usage.
    """
    numbers_of_images = references if sweep is None else references or sweep.reference_counts
    if seed is not None and numbers_of_images is None:
        raise typer.BadParameter("--seed needs --references: set both.")
    if sweep is not None and (keep or damage):
        raise typer.BadParameter("--sweep excludes --keep and --damage. It prints the command that loads its choice.")
    try:
        from patchserve_client.cli._evaluation import run_evaluation  # noqa: PLC0415 - optional, and slow to load
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in _PACKAGES_OF_THE_EXTRA:
            raise
        fail(f'Evaluation requires {missing}: `pip install ".[evaluate]"` in a checkout of patchserve.')
    if sweep is None:
        options["profile"] = options["profile"] or DEFAULT_PROFILE
    plan = Plan(
        dataset=dataset,
        reference_id=reference,
        reference_count=references,
        seed=seed,
        load_options=options,
        sweep=sweep,
        keep=keep,
        output=output,
        out=out,
        report=report,
        damage=damage,
    )
    if not run_evaluation(settings, plan):
        raise typer.Exit(1)
