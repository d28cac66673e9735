"""The load generator of the Python client for tests of a fleet. README.md says what it does and prints."""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from patchserve_client import Client, Frame, PatchserveError, TlsConfig

PAUSE_S = 0.02
LOAD_PAUSE_S = 0.5
RESUME_FOR_S = 60.0
MOST_FAILURES = 10
OWN_ID = "soak-python"


class Counts:
    """Counts calls by kind. Threads share it."""

    def __init__(self, kinds: list[str]) -> None:
        self._calls = {kind: {"ok": 0, "failed": 0} for kind in kinds}
        self._failures: list[str] = []
        self._lock = threading.Lock()
        self._is_started = False

    def ok(self, kind: str) -> None:
        with self._lock:
            self._calls[kind]["ok"] += 1
            if not self._is_started and all(count["ok"] for count in self._calls.values()):
                self._is_started = True
                print(json.dumps({"started": True}), flush=True)

    def failed(self, kind: str, what: object) -> None:
        text = f"{what.code} {what.reason}: {what}" if isinstance(what, PatchserveError) else str(what)
        with self._lock:
            self._calls[kind]["failed"] += 1
            if len(self._failures) < MOST_FAILURES:
                self._failures.append(f"{kind}: {text}")

    def print(self) -> None:
        print(json.dumps({"language": "python", "calls": self._calls, "failures": self._failures}), flush=True)


class Soak:
    """Calls of each kind, in a thread each, until `stop` is set or so many rounds are done."""

    def __init__(
        self, client: Client, reference_id: str, images: list[bytes], rounds: int | None, stop: threading.Event
    ) -> None:
        self._client = client
        self._reference_id = reference_id
        self._images = images
        self._rounds = rounds
        self._stop = stop
        self._sent = 0
        self._singles: dict[str, Callable[[bytes], object]] = {
            "Infer": lambda image: client.infer(image, reference_id),
            "GetReference": lambda _: client.get_reference(reference_id),
            "ListReferences": lambda _: list(client.list_references()),
            "GetServerInfo": lambda _: client.server_info(),
            "LoadReference": self._load,
        }
        self._counts = Counts([*self._singles, "InferStream"])

    def run(self) -> None:
        threads = [threading.Thread(target=self._repeat, args=item) for item in self._singles.items()]
        threads.append(threading.Thread(target=self._stream))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._counts.print()

    def _images_in_turn(self, pause_s: float) -> Iterator[bytes]:
        numbers = itertools.count() if self._rounds is None else range(self._rounds)
        for number in numbers:
            if self._stop.is_set():
                return
            yield self._images[number % len(self._images)]
            self._stop.wait(pause_s)

    def _repeat(self, kind: str, call: Callable[[bytes], object]) -> None:
        is_slow = kind == "LoadReference" and self._rounds is None
        for image in self._images_in_turn(LOAD_PAUSE_S if is_slow else PAUSE_S):
            try:
                call(image)
            except (PatchserveError, AssertionError) as error:
                self._counts.failed(kind, error)
            else:
                self._counts.ok(kind)

    def _load(self, image: bytes) -> None:
        loaded = self._client.load_reference([image], OWN_ID)
        answered = self._client.infer(image, OWN_ID).reference_revision
        assert answered == loaded.revision, f"{answered} answered, not {loaded.revision}"

    def _frames(self) -> Iterator[Frame]:
        for image in self._images_in_turn(PAUSE_S):
            frame_id, self._sent = str(self._sent), self._sent + 1
            yield Frame(image, frame_id)

    def _stream(self) -> None:
        results = self._client.infer_stream(self._frames(), self._reference_id, resume_for_s=RESUME_FOR_S)
        expected = 0
        try:
            for expected, result in enumerate(results):
                is_right = (result.frame_id, result.sequence) == (str(expected), expected)
                if is_right and result.error is None:
                    self._counts.ok("InferStream")
                else:
                    told = f"frame {result.frame_id} as {result.sequence}, {result.error}, for {expected}"
                    self._counts.failed("InferStream", told)
                expected += 1  # noqa: PLW2901 - how many there were, when the loop has ended
            if expected != self._sent:
                self._counts.failed("InferStream", f"{expected} results for {self._sent} frames")
        except PatchserveError as error:
            self._counts.failed("InferStream", error)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("word", nargs="?", choices=["soak"])
    parser.add_argument("--server", required=True)
    parser.add_argument("--reference", default="default")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--token")
    chosen: Any = parser.parse_args(arguments)
    images = [path.read_bytes() for path in sorted(chosen.images.glob("*.[jp][pn]g"))]
    if not images:
        parser.error(f"There is no image in {chosen.images}.")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    tls = TlsConfig(chosen.ca) if chosen.ca else None
    with Client(chosen.server, tls=tls, token=chosen.token) as client:
        Soak(client, chosen.reference, images, chosen.rounds, stop).run()


if __name__ == "__main__":
    main()
