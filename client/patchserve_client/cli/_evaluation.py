"""The work of `patchserve evaluate`. Only this module of the command line needs the extra `evaluate`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from patchserve_client import Client, LoadOptions, ReferenceInfo
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._load_progress import shown_load
from patchserve_client.cli._loading import rejected_file_named
from patchserve_client.cli._output import print_error, print_line, print_note, print_table, progress
from patchserve_client.evaluation import (
    METRICS,
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
    json_file: Path | None
    plot_folder: Path | None


def run_evaluation(settings: Settings, plan: Plan) -> bool:
    """Measure, print, write and draw. Returns whether every image was inspected."""
    try:
        dataset = read_dataset(plan.dataset)
        files = list(chosen_references(dataset, plan.reference_count, plan.seed))
    except DatasetError as error:
        raise typer.BadParameter(str(error)) from error
    for folder in (plan.json_file and plan.json_file.parent, plan.plot_folder):
        if folder is not None:  # report a missing folder before the work starts
            folder.mkdir(parents=True, exist_ok=True)
    with settings.client() as client, _loaded(client, plan, files) as reference:
        with progress("Inspecting", len(dataset.images)) as step:
            findings = inspect(client, dataset.images, reference, frame_timeout_s=settings.timeout, step=step)
        numbers = report(dataset, reference, client.server_info(), findings)
        _print_numbers(numbers)
        if plan.json_file is not None:
            plan.json_file.write_text(json.dumps(numbers, indent=2, default=datetime.isoformat) + "\n")
        if plan.plot_folder is not None:
            draw_plots(client, reference, findings.verdicts, plan.plot_folder)
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


def _print_numbers(numbers: dict[str, Any]) -> None:
    counts = numbers["counts"]
    print_line(
        "{0}: {reference_images} reference images; {intact} intact and {defective} defective test images, "
        "{damaged_regions} damaged regions".format(numbers["dataset"], **counts)
    )
    print_line("")
    print_table(["metric", "value"], [[name, _metric_text(numbers[name])] for name in METRICS])
    print_line("")
    rows = [
        [defect, str(row["images"]), str(row["found"]), _metric_text(row["image_auroc"])]
        for defect, row in numbers["defects"].items()
    ]
    if rows:
        print_table(["defect", "images", "found", "image_auroc"], rows)
        print_line("")
    best = _metric_text(numbers["thresholds"]["best_score"])
    print_line(
        "f1, balanced_accuracy, false_alarm_rate and found are at the calibrated threshold, score 0.5. "
        f"The best threshold for these images is {best}."
    )
    for note in numbers["notes"]:
        print_note(f"Note: {note}")
    for failure in numbers["failed"]:
        print_error("{file}: {error}".format(**failure))


def _metric_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
