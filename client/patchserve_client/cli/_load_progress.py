"""The progress bar of a load, on a terminal: images sent, then the stages that the server reports."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from patchserve_client import Client, LoadProgress, LoadStage, PatchserveError

if TYPE_CHECKING:
    from rich.progress import Progress

_T = TypeVar("_T")

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
def shown_load(client: Client, reference_id: str, images: Sequence[_T]) -> Iterator[Collection[_T]]:
    """Yields the images to load and shows the progress until the block ends. In a log or a pipe it shows nothing."""
    if not sys.stdout.isatty():
        yield images
        return
    from rich.progress import MofNCompleteColumn, Progress  # noqa: PLC0415 - imported only if it is shown

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True) as display:
        bar = _LoadBar(display, len(images))
        has_ended = threading.Event()
        polling = threading.Thread(target=_poll, args=(client, reference_id, bar, has_ended), daemon=True)
        polling.start()
        try:
            yield _Counted(images, bar.show_sent)
        finally:
            has_ended.set()
            polling.join()


def _poll(client: Client, reference_id: str, bar: _LoadBar, has_ended: threading.Event) -> None:
    """Request the progress until the load has ended. If several loads have this reference id, show the newest one."""
    while not has_ended.wait(POLL_INTERVAL_S):
        with suppress(PatchserveError):  # the load itself reports the error
            loads = client.list_loads(reference_id, timeout_s=POLL_TIMEOUT_S)
            if loads:
                bar.show(loads[-1])


class _Counted(Collection[_T]):
    """The same images, and a call after each. The client may send them once more, and then begins again."""

    def __init__(self, images: Sequence[_T], on_sent: Callable[[int], None]) -> None:
        self._images = images
        self._on_sent = on_sent

    def __iter__(self) -> Iterator[_T]:
        for number, image in enumerate(self._images, 1):
            yield image
            self._on_sent(number)

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, image: object) -> bool:
        return image in self._images


class _LoadBar:
    """One line: images sent until the server reports a stage, then the steps of that stage."""

    def __init__(self, display: Progress, image_count: int) -> None:
        self._display = display
        self._image_count = image_count
        self._sending_task = self._visible_task = display.add_task("Sending", total=image_count)
        self._label = ""

    def show_sent(self, count: int) -> None:
        """Show how many images were sent."""
        self._display.update(self._sending_task, completed=count)

    def show(self, load: LoadProgress) -> None:
        """Show the stage and its steps."""
        label, total = _LABELS[load.stage], load.steps_total or None
        if load.stage is LoadStage.RECEIVE:
            total = self._image_count
        if label != self._label:
            self._label = label
            self._display.update(self._visible_task, visible=False)
            self._visible_task = self._display.add_task(label, total=total)
        self._display.update(self._visible_task, completed=load.steps_done, total=total, refresh=True)
