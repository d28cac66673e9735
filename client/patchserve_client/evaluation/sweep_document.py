"""The result of a sweep as a JSON document, and as a page of HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from patchserve_client._counted import counted
from patchserve_client._device_text import device_text
from patchserve_client.evaluation.html_page import Cell, Page, Plot, Row, Table
from patchserve_client.evaluation.number_text import (
    NONE,
    percent_range,
    percent_text,
    share_range,
    share_text,
    three_digits,
)
from patchserve_client.evaluation.outcome import Failure, Outcome
from patchserve_client.evaluation.setting import TITLES as SETTING_TITLES
from patchserve_client.evaluation.setting import Setting
from patchserve_client.evaluation.sweep_plot import draw_sweep
from patchserve_client.evaluation.sweep_result import SweepResult

CommandOf = Callable[[Setting], str]
"""The command that loads a reference with a setting."""

_TITLES = (
    "#",
    "compared",
    *SETTING_TITLES,
    "image AUROC",
    "average precision",
    "balanced accuracy",
    "false alarms",
    "ms an image",
    "MiB",
)
_RANKING, _RATES = ("image_auroc", "average_precision"), ("balanced_accuracy", "false_alarm_rate")


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
    metrics = {name: getattr(one.metrics, name) for name in (*_RANKING, *_RATES, "found_rate")}
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


def _row(result: SweepResult, one: Outcome | Failure, number: int) -> Row:
    standing = result.standing(one)
    mark = standing.replace(" ", "-")
    setting = [Cell(word) for word in one.setting.cells()]
    if isinstance(one, Failure):
        return Row([Cell(str(number)), Cell(standing, one.reason), *setting, *[Cell(NONE)] * 6], mark)
    ranking = [Cell(share_text(getattr(one.metrics, name)), share_range(one.intervals[name])) for name in _RANKING]
    rates = [Cell(percent_text(getattr(one.metrics, name)), percent_range(one.intervals[name])) for name in _RATES]
    times = Cell(three_digits(one.image_ms), f"{three_digits(one.wall_ms)} in a row")
    cost = [times, Cell(three_digits(one.bank_mib))]
    return Row([Cell(str(number)), Cell(standing), *setting, *ranking, *rates, *cost], mark)


def sweep_page(result: SweepResult, command_of: CommandOf) -> Page:
    """The page: conclusion and command, the table of all settings, the plot, the worst verdicts of the chosen one."""
    chosen, server = result.chosen, result.server
    images = result.dataset.images
    intact = sum(image.defect is None for image in images)
    test_images = f"{intact} intact and {counted(len(images) - intact, 'defective test image')}"
    rows = [_row(result, one, number) for number, one in enumerate(result.results, 1)]
    device = device_text(server.device, server.decode)
    return Page(
        title=f"Which setting suits {result.dataset.root.name}?",
        facts=[
            f"{counted(len(result.dataset.references), 'reference image')}; {test_images} in {result.dataset.root}",
            f"patchserve {server.version}, backbone {server.backbone}, {server.precision}, {device}",
        ],
        conclusion=result.conclusion(),
        command="" if chosen is None else command_of(chosen.setting),
        tables=[Table("All settings", _TITLES, rows, note=_TABLE_NOTE)],
        plots=[Plot(draw_sweep(result), _plot_text(result))] if chosen is not None else [],
        pictures_title="" if chosen is None else f"The worst verdicts of the chosen setting: {chosen.setting}",
        pictures=() if chosen is None else chosen.pictures,
        notes=result.dataset.notes,
    )


_TABLE_NOTE = (
    'Small: 95 % confidence intervals, and the time from image to image while all were sent. Compared: "as good" '
    "means that chance may explain how far the image AUROC is behind the best, and that the balanced accuracy is "
    'as good, too; "chosen" is the cheapest of these. For that, the images are drawn again 4000 times '
    "(bootstrap), the same ones for all settings. Balanced accuracy and false alarms are those at the calibrated "
    "threshold. ms an image: backbone and search on the server, the median over images that came alone."
)


def _plot_text(result: SweepResult) -> str:
    points = ", ".join(
        f"{number}: {share_text(one.metrics.image_auroc)} at {three_digits(one.image_ms)} ms and "
        f"{three_digits(one.bank_mib)} MiB"
        for number, one in enumerate(result.results, 1)
        if isinstance(one, Outcome)
    )
    return f"Image AUROC of each setting against its time and its memory. {points}."
