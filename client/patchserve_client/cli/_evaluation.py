"""The work of `patchserve evaluate`. Only this module of the command line needs the extra `evaluate`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from patchserve_client import Client, LoadOptions, ReferenceInfo
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._evaluation_text import print_numbers
from patchserve_client.cli._load_progress import shown_load
from patchserve_client.cli._loading import rejected_file_named
from patchserve_client.cli._output import as_json_text, print_json, progress
from patchserve_client.evaluation import (
    DatasetError,
    ReferenceExistsError,
    chosen_references,
    draw_plots,
    inspect,
    loaded_reference,
    read_dataset,
    report,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of the command."""

    dataset: Path
    reference_id: str
    reference_count: int | None  # None: all
    seed: int | None
    load_options: LoadOptions
    keep: bool
    as_json: bool
    out: Path | None
    damage: bool  # whether to measure the notebook's measure, too


def run_evaluation(settings: Settings, plan: Plan) -> bool:
    """Measure, print, write and draw. Returns whether every image was inspected."""
    try:
        dataset = read_dataset(plan.dataset)
        files = list(chosen_references(dataset, plan.reference_count, plan.seed))
    except DatasetError as error:
        raise typer.BadParameter(str(error)) from error
    if plan.out is not None:  # report a folder that cannot be made before the work starts
        plan.out.mkdir(parents=True, exist_ok=True)
    with settings.client() as client, _loaded(client, plan, files) as reference:
        with progress("Inspecting", len(dataset.images)) as step:
            findings = inspect(client, dataset.images, reference, frame_timeout_s=settings.timeout, step=step)
        numbers = report(dataset, reference, client.server_info(), findings, damage=plan.damage)
        if plan.as_json:
            print_json(numbers)
        else:
            print_numbers(numbers, plan.reference_id, keep=plan.keep)
        if plan.out is not None:
            (plan.out / "numbers.json").write_text(as_json_text(numbers) + "\n")
            draw_plots(client, reference, findings.verdicts, plan.out)
    return not findings.failed


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
