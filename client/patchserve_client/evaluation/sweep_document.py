"""The result of a sweep as a JSON document, and as a page of HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from patchserve_client._counted import counted
from patchserve_client.evaluation.html_page import Page, Plot, Row, Table
from patchserve_client.evaluation.number_text import (
    NONE,
    percent_range,
    percent_text,
    share_range,
    share_text,
    three_digits,
    with_range,
)
from patchserve_client.evaluation.outcome import Failure, Outcome
from patchserve_client.evaluation.setting import Setting
from patchserve_client.evaluation.sweep_plot import draw_sweep
from patchserve_client.evaluation.sweep_result import SweepResult

CommandOf = Callable[[Setting], str]
"""The command that loads a reference with a setting."""

SETTING_TITLES = ("profile", "bank", "references")
TITLES = ("#", *SETTING_TITLES, "image AUROC", "average precision", "balanced accuracy", "false alarms", "found")
COST_TITLES = ("ms an image", "ms, all at once", "MiB", "")
_RANKING, _RATES = ("image_auroc", "average_precision", "balanced_accuracy"), ("false_alarm_rate", "found_rate")


def sweep_document(result: SweepResult, command_of: CommandOf) -> dict[str, Any]:
    """Everything but pictures. `chosen` and `best` are numbers of settings, from 1."""
    numbers = {id(one): number for number, one in enumerate(result.results, 1)}
    choice = result.choice
    return {
        "chosen": None if choice is None else numbers[id(result.outcomes[choice.chosen])],
        "best": None if choice is None else numbers[id(result.outcomes[choice.best])],
        "command": None if result.chosen is None else command_of(result.chosen.setting),
        "conclusion": result.conclusion(),
        "settings": [_entry(result, one, number, command_of) for number, one in enumerate(result.results, 1)],
        "planned_settings": result.planned,
        "dataset": str(result.dataset.root),
        "server": dataclasses.asdict(result.server),
        "notes": list(result.dataset.notes),
    }


def _entry(result: SweepResult, one: Outcome | Failure, number: int, command_of: CommandOf) -> dict[str, Any]:
    setting = {"number": number, **dataclasses.asdict(one.setting), "standing": result.standing(one)}
    if isinstance(one, Failure):
        return {**setting, "reason": one.reason}
    metrics = {name: getattr(one.metrics, name) for name in (*_RANKING, *_RATES)}
    return {
        **setting,
        **metrics,
        "intervals": one.intervals,
        "image_ms": one.image_ms,
        "wall_ms": one.wall_ms,
        "load_s": one.load_s,
        "bank_bytes": one.reference.bank_bytes,
        "reference_images": one.reference.image_count,
        "images": len(one.findings.verdicts),
        "failed_images": [{"file": image.name, "error": str(error)} for image, error in one.findings.failed],
        "command": command_of(one.setting),
    }


def cells(result: SweepResult, one: Outcome | Failure, number: int) -> list[str]:
    """The cells of a setting below TITLES and COST_TITLES. A failure has its reason in the last one."""
    if isinstance(one, Failure):
        empty = [NONE] * (len(TITLES) + len(COST_TITLES) - len(SETTING_TITLES) - 2)
        return [str(number), *one.setting.words(), *empty, f"failed: {one.reason}"]
    ranking = [
        with_range(share_text(getattr(one.metrics, name)), share_range(one.intervals.get(name))) for name in _RANKING
    ]
    rates = [
        with_range(percent_text(getattr(one.metrics, name)), percent_range(one.intervals.get(name))) for name in _RATES
    ]
    costs = [three_digits(cost) for cost in (one.image_ms, one.wall_ms, one.bank_mib)]
    return [str(number), *one.setting.words(), *ranking, *rates, *costs, result.standing(one)]


def sweep_page(result: SweepResult, command_of: CommandOf) -> Page:
    """The page: conclusion and command, the table of all settings, the plot, the worst verdicts of the chosen one."""
    chosen, server = result.chosen, result.server
    images = result.dataset.images
    intact = sum(image.defect is None for image in images)
    test_images = f"{intact} intact and {counted(len(images) - intact, 'defective test image')}"
    rows = [
        Row(cells(result, one, number), mark=result.standing(one).replace(" ", "-"))
        for number, one in enumerate(result.results, 1)
    ]
    return Page(
        title=f"Which setting suits {result.dataset.root.name}?",
        facts=[
            f"{counted(len(result.dataset.references), 'reference image')}; {test_images} in {result.dataset.root}",
            f"patchserve {server.version}, backbone {server.backbone}, {server.precision}, {server.device}",
        ],
        conclusion=result.conclusion(),
        command="" if chosen is None else command_of(chosen.setting),
        tables=[Table("All settings", (*TITLES, *COST_TITLES), rows, note=_TABLE_NOTE)],
        plots=[Plot(draw_sweep(result), _plot_text(result))] if chosen is not None else [],
        pictures_title="" if chosen is None else f"The worst verdicts of the chosen setting: {chosen.setting}",
        pictures=() if chosen is None else chosen.pictures,
        notes=result.dataset.notes,
    )


_TABLE_NOTE = (
    "In parentheses: 95 % confidence intervals. Chosen: the cheapest of the settings that are as good as the "
    "best, which means that chance may explain how far their image AUROC is behind it, and that their balanced "
    "accuracy is not worse by more than chance either. Images are drawn again 4000 times (bootstrap), the same "
    "ones for all settings. Balanced accuracy, false alarms and found are those at the calibrated threshold. ms "
    "an image: backbone and search, the median over images that came alone; all at once: from image to image "
    "while all were sent."
)


def _plot_text(result: SweepResult) -> str:
    points = ", ".join(
        f"{number}: {share_text(one.metrics.image_auroc)} at {three_digits(one.image_ms)} ms and "
        f"{three_digits(one.bank_mib)} MiB"
        for number, one in enumerate(result.results, 1)
        if isinstance(one, Outcome)
    )
    return f"Image AUROC of each setting against its time and its memory. {points}."
