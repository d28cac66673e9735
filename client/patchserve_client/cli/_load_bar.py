"""How far a load is, on a terminal: the images that are read, then what the server tells."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from patchserve_client import Client, LoadProgress, LoadStage, PatchserveError

if TYPE_CHECKING:
    from rich.progress import Progress

POLL_INTERVAL_S: Final = 0.5
POLL_TIMEOUT_S: Final = 2.0

_LABELS: Final = {
    LoadStage.RECEIVE: "Receiving",
    LoadStage.QUANTIZE: "Quantizing",
    LoadStage.EMBED: "Embedding",
    LoadStage.CORESET: "Selecting patches",
    LoadStage.CALIBRATE: "Calibrating",
    LoadStage.SAVE: "Saving",
    None: "Working",
}


@contextmanager
def load_shown(client: Client, reference_id: str, files: list[Path]) -> Iterator[Iterator[Path]]:
    """Gives the files to load and shows how far the load is until the block ends; not in a log or a pipe."""
    if not sys.stdout.isatty():
        yield iter(files)
        return
    from rich.progress import MofNCompleteColumn, Progress  # noqa: PLC0415 - loaded where it is drawn

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True) as drawn:
        bar = _LoadBar(drawn, len(files))
        ended = threading.Event()
        polling = threading.Thread(target=_poll, args=(client, reference_id, bar, ended), daemon=True)
        polling.start()
        try:
            yield bar.counted(files)
        finally:
            ended.set()
            polling.join()


def _poll(client: Client, reference_id: str, bar: _LoadBar, ended: threading.Event) -> None:
    """Asks until the load has ended. Where others load the same reference, the newest load is taken for ours."""
    while not ended.wait(POLL_INTERVAL_S):
        with suppress(PatchserveError):  # the load itself says what is wrong
            loads = client.list_loads(reference_id, timeout_s=POLL_TIMEOUT_S)
            if loads:
                bar.show(loads[-1])


class _LoadBar:
    """One line: the images that are sent until the server tells more, then the steps of its stage."""

    def __init__(self, drawn: Progress, count: int) -> None:
        self._drawn = drawn
        self._count = count
        self._sending = self._shown = drawn.add_task("Sending", total=count)
        self._label = ""

    def counted(self, files: list[Path]) -> Iterator[Path]:
        """The files, with a step after each."""
        for file in files:
            yield file
            self._drawn.advance(self._sending)

    def show(self, load: LoadProgress) -> None:
        label, total = _LABELS[load.stage], load.steps_total or None
        if load.stage is LoadStage.RECEIVE:
            total = self._count
        if label != self._label:
            self._label = label
            self._drawn.update(self._shown, visible=False)
            self._shown = self._drawn.add_task(label, total=total)
        self._drawn.update(self._shown, completed=load.steps_done, total=total, refresh=True)
