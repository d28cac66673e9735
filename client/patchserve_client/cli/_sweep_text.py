"""The output of `patchserve evaluate --sweep`."""

from __future__ import annotations

from patchserve_client.cli._output import print_line, print_note, print_table
from patchserve_client.evaluation import Failure, SweepResult
from patchserve_client.evaluation.number_text import NONE, percent_text, share_range, share_text, three_digits
from patchserve_client.evaluation.setting import TITLES

_TITLES = ("#", *TITLES, "AUROC", "95 % interval", "balanced accuracy", "false alarms", "ms", "MiB", "")


def print_sweep(result: SweepResult, command: str | None) -> None:
    """Print a line for each setting, the conclusion, and the command that loads the chosen one."""
    rows = []
    for number, one in enumerate(result.results, 1):
        setting = [str(number), *one.setting.cells()]
        if isinstance(one, Failure):
            rows.append([*setting, *[NONE] * 6, "failed"])
            continue
        metrics = one.metrics
        rows.append(
            [
                *setting,
                share_text(metrics.image_auroc),
                share_range(one.intervals["image_auroc"]),
                percent_text(metrics.balanced_accuracy),
                percent_text(metrics.false_alarm_rate),
                three_digits(one.image_ms),
                three_digits(one.bank_mib),
                result.standing(one),
            ]
        )
    if rows:
        print_table(_TITLES, rows)
        print_line("")
    for sentence in result.conclusion():
        print_line(sentence)
    if command is not None:
        print_line(f"To load it: {command}")
    for note in result.dataset.notes:
        print_note(f"Note: {note}")
