"""`patchserve evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._loading import (
    ApproximateSearch,
    CoresetMaxPatches,
    CoresetRatio,
    Profile,
    SearchRadius,
    check_coreset,
)

_OF_THE_EXTRA = {"matplotlib", "scipy", "sklearn"}


@connected
def evaluate(
    settings: Settings,
    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="A folder in MVTec layout.", exists=True, file_okay=False),
    ],
    *,
    reference: Annotated[
        str, typer.Option(metavar="ID", help="The name of the reference that is loaded from train/good.")
    ] = "evaluation",
    references: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Load only so many images, the first ones by name.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Draw the images of --references instead, always the same ones.")
    ] = None,
    profile: Profile = None,
    coreset_ratio: CoresetRatio = None,
    coreset_max_patches: CoresetMaxPatches = None,
    search_radius: SearchRadius = None,
    approximate_search: ApproximateSearch = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the reference on the server afterwards.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", dir_okay=False, help="Write all numbers here.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Draw roc.png, scores.png and mistakes.png here."),
    ] = None,
) -> None:
    """Measure how good the verdicts are on labeled images.

    Loads DATASET/train/good as a reference of its own, inspects DATASET/test/good and DATASET/test/<defect>, and
    compares with the masks in DATASET/ground_truth/<defect>/<stem>_mask.png where they are there. Needs scikit-learn
    and Matplotlib: pip install "patchserve[evaluate]".

    Exit codes: 0 every image was inspected; 1 one failed, or the server did; 2 wrong usage.
    """
    if seed is not None and references is None:
        raise typer.BadParameter("--seed draws the images that --references counts: give both.")
    check_coreset(coreset_ratio, coreset_max_patches)
    try:
        from patchserve_client.cli._evaluation import Plan, carry_out  # noqa: PLC0415 - optional, and slow to load
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in _OF_THE_EXTRA:
            raise
        raise typer.BadParameter(f'Evaluation needs {missing}: pip install "patchserve[evaluate]".') from error
    plan = Plan(
        dataset,
        reference,
        references,
        seed,
        profile,
        coreset_ratio,
        coreset_max_patches,
        search_radius,
        approximate_search,
        keep,
        json_file,
        out,
    )
    if not carry_out(settings, plan):
        raise typer.Exit(1)
