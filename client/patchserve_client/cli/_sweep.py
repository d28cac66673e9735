"""The work of `patchserve evaluate --sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from patchserve_client import Client, PatchserveError
from patchserve_client._image_files import images_in
from patchserve_client.cli._evaluation_plan import Plan
from patchserve_client.cli._failures import INTERRUPTED, is_interrupt, message_of
from patchserve_client.cli._formats import TEXT, print_results
from patchserve_client.cli._loading import load_command
from patchserve_client.cli._output import as_json_text, print_error, print_note
from patchserve_client.cli._report_file import write_page
from patchserve_client.cli._sweep_axes import axes, fixed_options
from patchserve_client.cli._sweep_options import SweptValues
from patchserve_client.cli._sweep_progress import SweepProgress, Work, sweep_progress
from patchserve_client.cli._sweep_text import print_sweep
from patchserve_client.evaluation import (
    Dataset,
    DatasetError,
    Failure,
    Outcome,
    Setting,
    Sweep,
    SweepResult,
    draw_sweep,
    measured,
    sweep_document,
    sweep_page,
)


def run_sweep(
    client: Client, dataset: Dataset, plan: Plan, swept: SweptValues, *, frame_timeout_s: float | None
) -> bool:
    """Measure every setting, print, write and draw. Returns whether every setting was measured.

    Raises:
        typer.BadParameter: there are too few images.
        typer.Exit: it ended early. What was measured is printed and written first.
    """
    if len({image.defect is None for image in dataset.images}) == 1:
        raise typer.BadParameter("A sweep needs intact and defective test images, to tell settings apart.")
    settings = list(axes(plan, swept).settings())
    sweep = Sweep(dataset, fixed_options(plan.load_options), plan.reference_id, plan.seed, frame_timeout_s)
    try:
        works = [Work.of(sweep, setting) for setting in settings]
    except DatasetError as error:
        raise typer.BadParameter(str(error)) from error
    server = client.server_info()
    results: list[Outcome | Failure] = []
    with sweep_progress(works) as progress:
        exit_code = _measure_all(client, sweep, settings, results, progress)
    result = SweepResult(sweep.dataset, server, results, len(settings))
    if results:
        _tell(result, sweep, plan)
    if exit_code is not None:
        raise typer.Exit(exit_code)
    return not result.failures


def _measure_all(
    client: Client,
    sweep: Sweep,
    settings: Sequence[Setting],
    results: list[Outcome | Failure],
    progress: SweepProgress,
) -> int | None:
    """Add the result of each setting to `results`. Returns the exit code if the sweep ended early."""
    try:
        for setting in settings:
            results.append(measured(client, sweep, setting, progress.step))
            progress.ended(results[-1])
    except PatchserveError as error:
        if not results:
            raise
        print_error(message_of(error))
        return 1
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error) or not results:
            raise
        print_note("Interrupted.")
        return INTERRUPTED
    return None


def _tell(result: SweepResult, sweep: Sweep, plan: Plan) -> None:
    def command_of(setting: Setting) -> str:
        return load_command(_images(sweep, setting), setting.options(sweep.fixed))

    document = sweep_document(result, command_of)
    if plan.output is not TEXT:
        print_results(plan.output, document, document["settings"])
    else:
        print_sweep(result, document["command"])
    if plan.out is not None:
        (plan.out / "numbers.json").write_text(as_json_text(document) + "\n")
        if result.outcomes:
            (plan.out / "sweep.png").write_bytes(draw_sweep(result))
    if plan.report is not None:
        write_page(sweep_page(result, command_of), plan.report)


def _images(sweep: Sweep, setting: Setting) -> Sequence[Path]:
    """What `reference load` must be given to load the images of a setting: their folder, or each one."""
    files = sweep.references(setting)
    folder = files[0].parent
    return [folder] if list(files) == images_in(folder) else files
