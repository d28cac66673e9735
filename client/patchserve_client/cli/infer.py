"""`patchserve infer`."""

from __future__ import annotations

import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from patchserve_client import (
    Client,
    DeadlineExceeded,
    InferenceResult,
    Internal,
    InvalidArgument,
    PatchserveError,
    ResourceExhausted,
)
from patchserve_client._counted import counted
from patchserve_client._options import RequestOptions
from patchserve_client.cli import _report
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._formats import TEXT, OutputFormat, print_results
from patchserve_client.cli._image_files import ImagesArgument, named_images, read_image
from patchserve_client.cli._inspection_options import InspectionOptions, takes_inspection_options
from patchserve_client.cli._output import Column, Table, print_line, progress
from patchserve_client.cli._overlay_names import overlay_paths
from patchserve_client.cli._results_file import ResultsFile
from patchserve_client.cli._saved_anomalies import SavedAnomalies
from patchserve_client.cli._text import escaped, width_of
from patchserve_client.cli._video_frames import is_video

_PARALLEL_CALLS = 4
_TRIES_IF_FULL = 10


@dataclass(frozen=True, slots=True)
class _Inspector:
    """Inspects images with the same options."""

    client: Client
    options: InspectionOptions
    request: RequestOptions
    overlays: dict[Path, Path]  # image: overlay; empty: no overlays
    saved: SavedAnomalies | None

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
            result = self._infer(image, file.name)
        except PatchserveError as error:
            if not _is_about_the_image(error):
                raise
            return error
        if file in self.overlays and result.encoded_overlay is not None:
            self.overlays[file].parent.mkdir(parents=True, exist_ok=True)
            self.overlays[file].write_bytes(self.options.drawn(result))
        if self.saved is not None:
            self.saved.add(str(file), image, result)
        return result

    def _infer(self, image: bytes, name: str) -> InferenceResult:
        """Inspects one image; waits and tries again while the server is full."""
        for tries_left in reversed(range(_TRIES_IF_FULL)):
            try:
                return self.client.infer(image, self.options.reference, image_name=name, **self.request)
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
@takes_inspection_options
def infer(
    settings: Settings,
    images: ImagesArgument,
    *,
    options: InspectionOptions,
) -> None:
    """Inspect images.

    Prints one row per image. If an image fails, its row shows the error and the other images continue. --out writes
    <stem>_overlay files.

    Exit codes: 0 every image was inspected; 1 an image or the server failed; 2 wrong usage; 3 an image is anomalous
    (only with --fail-on-anomaly; 1 wins over 3).
    """
    named = named_images(images, options.written_folders)
    if (video := next(filter(is_video, named), None)) is not None:
        raise typer.BadParameter(f"{video} is a video. Inspect it with `patchserve stream`.")
    files = list(named)
    overlays = overlay_paths(named, options.out, options.overlay_style.suffix) if options.out else {}
    with contextlib.ExitStack() as cleanup:
        client = cleanup.enter_context(settings.client())
        request = options.request(client)  # before files are opened: it checks the options
        records = cleanup.enter_context(options.opened_records())
        report = _Report(files, overlays, options, records.results)
        _inspect_all(_Inspector(client, options, request, overlays, records.saved), files, report)
        report.end()
    options.exit_with(report.counts)


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
        options: InspectionOptions,
        results_file: ResultsFile | None,
    ) -> None:
        self.counts = {"intact": 0, "anomalous": 0, "error": 0}
        self._started_s = time.monotonic()
        self._results_file, self._verdicts = results_file, options.verdicts
        self._overlays, self._out = overlays, options.out
        self._output = options.output
        self._results: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []  # the same results as CSV
        file = Column("file", max(len("file"), *(width_of(escaped(str(file), sys.stdout)) for file in files)))
        overlay = (Column("overlay", 0),) if overlays else ()
        self._table = Table((file, *_report.columns(options.verdicts), *overlay))

    def add(self, file: Path, outcome: _report.Outcome) -> None:
        verdict = _report.verdict_of(outcome)
        self.counts[verdict] += 1
        if self._results_file is not None:
            self._results_file.add(str(file), outcome)
        has_overlay = file in self._overlays and isinstance(outcome, InferenceResult)
        if self._output is TEXT:
            overlay = [self._overlays[file].relative_to(self._out).as_posix()] if has_overlay and self._out else []
            cells = [str(file), *_report.cells(outcome, verdict, self._verdicts), *overlay]
            self._table.row(cells, {1: _report.COLORS[verdict]})
        else:
            self._keep(file, outcome, verdict, str(self._overlays[file]) if has_overlay else None)

    def _keep(self, file: Path, outcome: _report.Outcome, verdict: str, overlay: str | None) -> None:
        if self._output is OutputFormat.CSV:
            cells = _report.csv_cells(outcome, verdict, self._verdicts.threshold)
            self._rows.append({"time": datetime.now(UTC), "name": str(file), **cells})
        else:
            described = _report.as_json(outcome, verdict, self._verdicts)
            self._results.append({"file": str(file), **described, "overlay": overlay})

    def end(self) -> None:
        total, elapsed_s = sum(self.counts.values()), time.monotonic() - self._started_s
        if self._output is not TEXT:
            summary = {"images": total, **self.counts, "elapsed_s": elapsed_s}
            document = {"results": self._results, "summary": summary}
            print_results(self._output, document, self._rows or self._results, columns=_report.COLUMNS)
            return
        verdicts = "{intact} intact, {anomalous} anomalous, {error} failed".format(**self.counts)
        print_line(f"{counted(total, 'image')} in {elapsed_s:.1f} s ({total / elapsed_s:.1f}/s): {verdicts}")
