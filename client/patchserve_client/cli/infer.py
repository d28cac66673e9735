"""`patchserve infer`."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from patchserve_client import (
    Client,
    DeadlineExceeded,
    InferenceResult,
    Internal,
    InvalidArgument,
    OutputOptions,
    PatchserveError,
    ResourceExhausted,
)
from patchserve_client.cli import _report
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._image_files import ImagesArgument, named_images, overlay_paths, read_image
from patchserve_client.cli._output import Column, Table, print_json, print_line, progress
from patchserve_client.cli._overlays import OverlayStyle, takes_overlay_style
from patchserve_client.cli._paths import NEW_FOLDER
from patchserve_client.cli._text import counted, escaped, width_of
from patchserve_client.cli._verdict_options import VerdictOptions, takes_verdict_options

ANOMALY_FOUND = 3
_PARALLEL_CALLS = 4
_TRIES_IF_FULL = 10


@dataclass(frozen=True, slots=True)
class _Inspector:
    """Inspects images with the same options."""

    client: Client
    reference: str
    options: OutputOptions
    drawn: Callable[[InferenceResult], bytes]  # the overlay file of a result
    overlays: dict[Path, Path]  # image: overlay; empty: no overlays

    def inspect(self, file: Path) -> _report.Outcome:
        """The result, or the error of this image alone.

        Raises:
            PatchserveError: an error that also affects the other images.
            OSError: the overlay cannot be written.
        """
        try:
            image = read_image(file)
        except OSError as error:
            return error
        try:
            result = self._infer(image)
        except PatchserveError as error:
            if not _is_about_the_image(error):
                raise
            return error
        if result.encoded_overlay is not None:
            self.overlays[file].parent.mkdir(parents=True, exist_ok=True)
            self.overlays[file].write_bytes(self.drawn(result))
        return result

    def _infer(self, image: bytes) -> InferenceResult:
        """Inspects one image; waits and tries again while the server is full."""
        for tries_left in reversed(range(_TRIES_IF_FULL)):
            try:
                return self.client.infer(image, self.reference, **self.options)
            except ResourceExhausted as error:
                if error.retry_after_s is None or not tries_left:
                    raise
                time.sleep(error.retry_after_s)
        raise AssertionError("The last try returns or raises.")


def _is_about_the_image(error: PatchserveError) -> bool:
    if isinstance(error, InvalidArgument):
        return all(violation.field == "image" for violation in error.field_violations)
    return isinstance(error, (DeadlineExceeded, Internal, ResourceExhausted))


@connected
@takes_overlay_style
@takes_verdict_options
def infer(
    settings: Settings,
    images: ImagesArgument,
    *,
    reference: Annotated[str, typer.Option(metavar="ID", help="Reference to compare with.")] = "default",
    out: Annotated[
        Path | None,
        typer.Option(**NEW_FOLDER, metavar="DIR", help="Folder for <stem>_overlay files: heat map, regions, verdict."),
    ] = None,
    style: OverlayStyle | None,
    verdicts: VerdictOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with code 3 if an image is anomalous.")
    ] = False,
) -> None:
    """Inspect images.

    Prints one row per image. If an image fails, its row shows the error and the other images continue.

    Exit codes: 0 every image was inspected; 1 an image or the server failed; 2 wrong usage; 3 an image is anomalous
    (only with --fail-on-anomaly; 1 wins over 3).
    """
    if out is None and style is not None:
        names = "--heatmap-scale, --exact, --overlay-format and --overlay-max-side"
        raise typer.BadParameter(f"{names} need --out DIR for the overlays.")
    style = style or OverlayStyle()
    named = named_images(images)
    files = list(named)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    overlays = overlay_paths(named, out, style.suffix) if out is not None else {}
    options = verdicts.for_request
    if overlays:
        options.update(style.for_request)
    drawn = functools.partial(style.drawn, threshold=verdicts.threshold)
    with settings.client() as client:
        report = _Report(files, overlays, out, verdicts, as_json=as_json)
        _inspect_all(_Inspector(client, reference, options, drawn, overlays), files, report)
    report.end()
    if report.counts["error"]:
        raise typer.Exit(1)
    if fail_on_anomaly and report.counts["anomalous"]:
        raise typer.Exit(ANOMALY_FOUND)


def _inspect_all(inspector: _Inspector, files: list[Path], report: _Report) -> None:
    with progress("Inspecting", len(files)) as step, ThreadPoolExecutor(_PARALLEL_CALLS) as pool:
        try:
            for file, outcome in zip(files, pool.map(inspector.inspect, files), strict=True):
                report.add(file, outcome)
                step()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            inspector.client.close()  # otherwise the end of the pool waits for calls in progress
            raise


class _Report:
    """A row per image when its result arrives, or one JSON document at the end."""

    def __init__(
        self,
        files: list[Path],
        overlays: dict[Path, Path],
        out: Path | None,
        verdicts: VerdictOptions,
        *,
        as_json: bool,
    ) -> None:
        self.counts = {"intact": 0, "anomalous": 0, "error": 0}
        self._started_s = time.monotonic()
        self._verdicts = verdicts
        self._overlays, self._out = overlays, out
        self._results: list[dict[str, Any]] | None = [] if as_json else None
        file = Column("file", max(len("file"), *(width_of(escaped(str(file), sys.stdout)) for file in files)))
        overlay = (Column("overlay", 0),) if overlays else ()
        self._table = Table((file, *_report.columns(verdicts), *overlay))

    def add(self, file: Path, outcome: _report.Outcome) -> None:
        verdict = _report.verdict_of(outcome)
        self.counts[verdict] += 1
        has_overlay = isinstance(outcome, InferenceResult) and outcome.encoded_overlay is not None
        if self._results is None:
            overlay = [self._overlays[file].relative_to(self._out).as_posix()] if has_overlay and self._out else []
            cells = [str(file), *_report.cells(outcome, verdict, self._verdicts), *overlay]
            self._table.row(cells, {1: _report.COLORS[verdict]})
        else:
            path = str(self._overlays[file]) if has_overlay else None
            self._results.append(
                {"file": str(file), **_report.as_json(outcome, verdict, self._verdicts), "overlay": path}
            )

    def end(self) -> None:
        total, elapsed_s = sum(self.counts.values()), time.monotonic() - self._started_s
        if self._results is not None:
            summary = {"images": total, **self.counts, "elapsed_s": elapsed_s}
            print_json({"results": self._results, "summary": summary})
            return
        verdicts = "{intact} intact, {anomalous} anomalous, {error} failed".format(**self.counts)
        print_line(f"{counted(total, 'image')} in {elapsed_s:.1f} s ({total / elapsed_s:.1f}/s): {verdicts}")
