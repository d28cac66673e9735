"""`patchserve stream FOLDER --watch`: the images of a folder, and new ones as soon as they are whole."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from patchserve_client import Frame
from patchserve_client._image_files import SUFFIXES, frame_id_of, images_in
from patchserve_client.cli._arriving_file import ArrivingFile, Signature
from patchserve_client.cli._sources import Pace, SourceError, SourceOptions, Unreadable

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler

_SCAN_INTERVAL_S = 5.0  # finds what the system did not tell, for example about a network drive
_SCAN_INTERVAL_ALONE_S = 1.0  # if the system tells nothing
_LARGEST_SCAN_SHARE = 0.05  # of a core
_POLL_INTERVAL_S = 0.1

Event = tuple[Path, bool]
"""A file that changed, and whether its writer is done with it."""


class WatchedFolder:
    """Takes each file once, and again if it is replaced.

    Raises:
        SourceError: the extra `watch` is not installed.
    """

    is_live = False
    fps: float | None = None
    left_out_count = 0

    def __init__(self, folder: Path, options: SourceOptions, unreadable: Unreadable) -> None:
        self._folder, self._options, self._unreadable = folder, options, unreadable
        self._arriving: dict[Path, ArrivingFile] = {}
        self._taken: dict[Path, Signature] = {}
        _watchdog()

    def frames(self) -> Iterator[Frame]:
        """The images in the folder and below, then new ones until Ctrl-C.

        Raises:
            SourceError: the folder is gone.
        """
        pace = Pace(self._options.fps)
        with self._observed() as (events, scan_interval_s):
            scan_at_s = 0.0
            while not self._options.end.is_set():
                if time.monotonic() >= scan_at_s:
                    started_s = time.thread_time()
                    self._scan()
                    used_s = time.thread_time() - started_s
                    scan_at_s = time.monotonic() + max(scan_interval_s, used_s / _LARGEST_SCAN_SHARE)
                for path, is_finished in _waiting(events):
                    self._notice(path, is_finished=is_finished)
                for frame in self._whole():
                    if self._options.end.wait(pace.wait_s(time.monotonic())):
                        return
                    pace.passed(time.monotonic())
                    yield frame

    def _whole(self) -> Iterator[Frame]:
        """The files that are whole now, in the order in which they were noticed."""
        for path, file in list(self._arriving.items()):
            try:
                image = file.whole_image()
            except FileNotFoundError:
                del self._arriving[path]
                continue
            except OSError as error:
                self._take(path, file.signature)
                self._unreadable(self._name(path), error)
                continue
            if image is not None:
                self._take(path, file.signature)
                written = datetime.fromtimestamp(file.signature.modified_ns / 1e9, UTC)
                yield Frame(image, frame_id_of(self._name(path)), written)

    def _take(self, path: Path, signature: Signature) -> None:
        del self._arriving[path]
        self._taken[path] = signature

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _notice(self, path: Path, *, is_finished: bool) -> None:
        if any(path.resolve().is_relative_to(folder.resolve()) for folder in self._options.written_folders):
            return
        with contextlib.suppress(OSError):  # it is gone again
            signature = Signature.of(path.stat())
            if self._taken.get(path) != signature:
                self._arriving.setdefault(path, ArrivingFile(path)).changed(signature, is_finished=is_finished)

    def _scan(self) -> None:
        try:
            files = images_in(self._folder, self._options.written_folders)
        except ValueError:  # there are none
            files = []
        except OSError as error:
            if self._folder.is_dir():  # a sub-folder that is gone again: the next scan succeeds
                return
            raise SourceError(f"The folder {self._folder} cannot be read: {error.strerror}.") from error
        present = set(files)
        for path in self._taken.keys() - present:
            del self._taken[path]
        for path in files:
            if path not in self._arriving:
                self._notice(path, is_finished=False)

    @contextlib.contextmanager
    def _observed(self) -> Iterator[tuple[queue.SimpleQueue[Event], float]]:
        """Yields the queue of events, and how often to scan."""
        _, observers = _watchdog()
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        observer = observers.Observer()
        observer.daemon = True
        try:
            observer.schedule(_event_handler(self._folder, events), str(self._folder), recursive=True)
            observer.start()
        except OSError as error:  # such as the limit of inotify
            self._options.tell(
                "polling", f"The system does not watch {self._folder} ({error.strerror}): looking often."
            )
            yield events, _SCAN_INTERVAL_ALONE_S
            return
        try:
            yield events, _SCAN_INTERVAL_S
        finally:
            observer.stop()


def _event_handler(folder: Path, queued: queue.SimpleQueue[Event]) -> FileSystemEventHandler:
    """Queues what happens to images. The names of the events are those of watchdog."""
    events, _ = _watchdog()

    class Handler(events.FileSystemEventHandler):  # type: ignore[name-defined,misc]
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.is_directory or event.event_type not in ("created", "modified", "closed", "moved"):
                return
            path = Path(os.fsdecode(event.dest_path if event.event_type == "moved" else event.src_path))
            is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix.lower() in SUFFIXES and not is_hidden:
                queued.put((path, event.event_type in ("closed", "moved")))

    handler: FileSystemEventHandler = Handler()
    return handler


def _waiting(events: queue.SimpleQueue[Event]) -> Iterable[Event]:
    """The events so far. If there are none, waits a moment for one."""
    with contextlib.suppress(queue.Empty):
        yield events.get(timeout=_POLL_INTERVAL_S)
        for _ in itertools.count():
            yield events.get_nowait()


def _watchdog() -> tuple[ModuleType, ModuleType]:
    """The modules of watchdog.

    Raises:
        SourceError: it is not installed.
    """
    try:
        from watchdog import events, observers  # noqa: PLC0415 - optional
    except ImportError as error:
        raise SourceError('--watch requires watchdog: `pip install ".[watch]"` in a checkout of patchserve.') from error
    return events, observers
