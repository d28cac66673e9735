"""The work of `patchserve evaluate`. Only this module and `_sweep` need the extra `evaluate`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from patchserve_client import Client, ReferenceInfo
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._evaluation_plan import Plan
from patchserve_client.cli._evaluation_text import advice, print_numbers
from patchserve_client.cli._formats import TEXT, print_results
from patchserve_client.cli._load_progress import shown_load
from patchserve_client.cli._loading import rejected_file_named
from patchserve_client.cli._output import as_json_text, progress
from patchserve_client.cli._report_file import write_page
from patchserve_client.cli._sweep import run_sweep
from patchserve_client.evaluation import (
    Dataset,
    DatasetError,
    ReferenceExistsError,
    Verdict,
    VerdictPicture,
    chosen_references,
    draw_plots,
    drawn_verdicts,
    evaluation_page,
    inspect,
    loaded_reference,
    read_dataset,
    report,
    worst_verdicts,
)


def run_evaluation(settings: Settings, plan: Plan) -> bool:
    """Measure, print, write and draw. Returns whether every image was inspected, with every setting."""
    try:
        dataset = read_dataset(plan.dataset)
        files = list(chosen_references(dataset, plan.reference_count, plan.seed))
    except DatasetError as error:
        raise typer.BadParameter(str(error)) from error
    if plan.out is not None:  # report a folder that cannot be made before the work starts
        plan.out.mkdir(parents=True, exist_ok=True)
    with settings.client() as client:
        if plan.sweep is not None:
            return run_sweep(client, dataset, plan, plan.sweep, frame_timeout_s=settings.timeout)
        return _evaluate(client, dataset, files, plan, frame_timeout_s=settings.timeout)


def _evaluate(
    client: Client, dataset: Dataset, files: list[Path], plan: Plan, *, frame_timeout_s: float | None
) -> bool:
    with _loaded(client, plan, files) as reference:
        with progress("Inspecting", len(dataset.images)) as step:
            findings = inspect(client, dataset.images, reference, frame_timeout_s=frame_timeout_s, step=step)
        numbers = report(dataset, reference, client.server_info(), findings, damage=plan.damage)
        if plan.output is not TEXT:
            print_results(plan.output, numbers)
        else:
            print_numbers(numbers, plan.reference_id, keep=plan.keep)
        if plan.out is not None or plan.report is not None:
            pictures = list(drawn_verdicts(client, reference, worst_verdicts(findings.verdicts)))
            _write(plan, dataset, numbers, findings.verdicts, pictures)
    return not findings.failed


def _write(
    plan: Plan,
    dataset: Dataset,
    numbers: dict[str, Any],
    verdicts: Sequence[Verdict],
    pictures: Sequence[VerdictPicture],
) -> None:
    if plan.out is not None:
        (plan.out / "numbers.json").write_text(as_json_text(numbers) + "\n")
        draw_plots(verdicts, pictures, plan.out)
    if plan.report is not None:
        sentences = list(advice(numbers, plan.reference_id, keep=plan.keep))
        page = evaluation_page(dataset, numbers, sentences, verdicts, pictures)
        write_page(page, plan.report)


@contextlib.contextmanager
def _loaded(client: Client, plan: Plan, files: list[Path]) -> Iterator[ReferenceInfo]:
    with contextlib.ExitStack() as cleanup:
        with rejected_file_named(files), shown_load(client, plan.reference_id, files) as images:
            loading = loaded_reference(client, images, plan.reference_id, keep=plan.keep, **plan.load_options)
            try:
                reference = cleanup.enter_context(loading)
            except ReferenceExistsError as error:
                advice = f"Choose another --reference, or delete it: patchserve reference delete {plan.reference_id}"
                raise typer.BadParameter(f"{error} {advice}") from error
        yield reference
