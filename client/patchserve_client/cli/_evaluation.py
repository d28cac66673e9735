"""What `patchserve evaluate` does; the one module of the command that needs the extra `evaluate`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from patchserve_client import Client, ReferenceInfo, ScoringProfile
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._load_bar import load_shown
from patchserve_client.cli._loading import refused_file_named
from patchserve_client.cli._output import progress, say, say_table
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
    """What the command line asks for."""

    dataset: Path
    reference_id: str
    reference_count: int | None
    seed: int | None
    profile: ScoringProfile | None
    coreset_ratio: float | None
    coreset_max_patches: int | None
    search_radius: float | None
    approximate_search: bool
    keep: bool
    json_file: Path | None
    out: Path | None


def carry_out(settings: Settings, plan: Plan) -> bool:
    """Measures, prints, writes and draws; tells whether every image was inspected."""
    try:
        dataset = read_dataset(plan.dataset)
        files = list(chosen_references(dataset, plan.reference_count, plan.seed))
    except DatasetError as error:
        raise typer.BadParameter(str(error)) from error
    for folder in (plan.json_file and plan.json_file.parent, plan.out):
        if folder is not None:  # what cannot be written is better known now
            folder.mkdir(parents=True, exist_ok=True)
    with settings.client() as client, _loaded(client, plan, files) as reference:
        with progress("Inspecting", len(dataset.images)) as step:
            findings = inspect(client, dataset.images, reference, frame_timeout_s=settings.timeout, step=step)
        numbers = report(dataset, reference, client.server_info(), findings)
        _say(numbers)
        if plan.json_file is not None:
            plan.json_file.write_text(json.dumps(numbers, indent=2, default=datetime.isoformat) + "\n")
        if plan.out is not None:
            draw_plots(client, reference, findings.verdicts, plan.out)
    return not findings.failed


@contextlib.contextmanager
def _loaded(client: Client, plan: Plan, files: list[Path]) -> Iterator[ReferenceInfo]:
    with contextlib.ExitStack() as cleanup:
        with refused_file_named(files), load_shown(client, plan.reference_id, files) as images:
            try:
                reference = cleanup.enter_context(
                    loaded_reference(
                        client,
                        images,
                        plan.reference_id,
                        profile=plan.profile,
                        coreset_ratio=plan.coreset_ratio,
                        coreset_max_patches=plan.coreset_max_patches,
                        search_radius=plan.search_radius,
                        approximate_search=plan.approximate_search or None,
                        keep=plan.keep,
                    )
                )
            except ReferenceExistsError as error:
                advice = f"Name another with --reference, or delete it: patchserve reference delete {plan.reference_id}"
                raise typer.BadParameter(f"{error} {advice}") from error
        yield reference


def _say(numbers: dict[str, Any]) -> None:
    counts = numbers["counts"]
    say(
        "{0}: {reference_images} reference images; {intact} intact and {defective} defective test images, "
        "{damaged_regions} damaged regions".format(numbers["dataset"], **counts)
    )
    say("")
    say_table(["metric", "value"], [[name, _shown(numbers[name])] for name in METRICS])
    say("")
    rows = [
        [defect, str(of_it["images"]), str(of_it["found"]), _shown(of_it["image_auroc"])]
        for defect, of_it in numbers["defects"].items()
    ]
    if rows:
        say_table(["defect", "images", "found", "image_auroc"], rows)
        say("")
    best = _shown(numbers["thresholds"]["best_score"])
    say(f"F1, balanced accuracy, false alarms and found: at the calibrated threshold, 0.5; the best would be {best}.")
    for note in numbers["notes"]:
        typer.echo(f"Note: {note}", err=True)
    for failure in numbers["failed"]:
        typer.echo("Error: {file}: {error}".format(**failure), err=True)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
