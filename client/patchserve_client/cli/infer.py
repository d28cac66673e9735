"""`patchserve infer`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from patchserve_client import (
    Client,
    DeadlineExceeded,
    HeatmapScale,
    InferenceResult,
    Internal,
    InvalidArgument,
    OverlayFormat,
    PatchserveError,
    ResourceExhausted,
)
from patchserve_client.cli import _report
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._image_files import images_in, overlay_paths
from patchserve_client.cli._output import Column, Table, progress, say, say_json
from patchserve_client.cli._overlays import SUFFIXES, FormatOption, MaxSideOption

ANOMALY_FOUND = 3
_AT_ONCE = 4
_TRIES_WHEN_FULL = 10


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """What is asked about every image."""

    client: Client
    reference: str
    heatmap: HeatmapScale | None
    max_regions: int | None
    sensitivity: float | None
    overlays: dict[Path, Path]  # empty: none are wanted
    overlay_format: OverlayFormat
    overlay_max_side_px: int | None

    def of(self, file: Path) -> _report.Outcome:
        """The result, or why this one image has none.

        Raises:
            PatchserveError: what any other image would meet as well.
            OSError: the overlay cannot be written.
        """
        try:
            image = file.read_bytes()
        except OSError as error:
            return error
        try:
            result = self._asked(image)
        except PatchserveError as error:
            if not _is_about_the_image(error):
                raise
            return error
        if result.encoded_overlay is not None:
            self.overlays[file].write_bytes(result.encoded_overlay.data)
        return result

    def _asked(self, image: bytes) -> InferenceResult:
        for tries_left in reversed(range(_TRIES_WHEN_FULL)):
            try:
                return self.client.infer(
                    image,
                    self.reference,
                    overlay=bool(self.overlays),
                    heatmap_scale=self.heatmap,
                    max_regions=self.max_regions,
                    sensitivity=self.sensitivity,
                    overlay_format=self.overlay_format,
                    overlay_max_side_px=self.overlay_max_side_px,
                )
            except ResourceExhausted as error:  # others use the server too: it says when to come back
                if error.retry_after_s is None or not tries_left:
                    raise
                time.sleep(error.retry_after_s)
        raise AssertionError("The last try returns or raises.")


def _is_about_the_image(error: PatchserveError) -> bool:
    if isinstance(error, InvalidArgument):
        return all(violation.field == "image" for violation in error.field_violations)
    return isinstance(error, (DeadlineExceeded, Internal, ResourceExhausted))


@connected
def infer(
    settings: Settings,
    images: Annotated[list[Path], typer.Argument(metavar="FILE|DIR", exists=True)],
    *,
    reference: Annotated[str, typer.Option(metavar="ID", help="What to compare with.")] = "default",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write <stem>_overlay files here.")] = None,
    heatmap: Annotated[
        HeatmapScale | None, typer.Option(help="The overlays' colors.  [default: the server's setting]")
    ] = None,
    overlay_format: FormatOption = None,
    overlay_max_side: MaxSideOption = None,
    max_regions: Annotated[int | None, typer.Option(min=0, metavar="N", help="List at most so many regions.")] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=10, metavar="X", help="Divide the thresholds by X: above 1 finds more.  [default: 1]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="End with code 3 when an image is anomalous.")
    ] = False,
) -> None:
    """Inspect images: files, or all those in a folder.

    Lists the verdict of each. An image that fails has an error in its row, and the rest goes on.

    Exit codes: 0 every image was inspected; 1 one failed, or the server did; 2 wrong usage; 3 one is anomalous, with
    --fail-on-anomaly (1 comes first).
    """
    if out is None and (heatmap, overlay_format, overlay_max_side) != (None, None, None):
        text = (
            "--heatmap, --overlay-format and --overlay-max-side are about overlays: say with --out where to put them."
        )
        raise typer.BadParameter(text)
    files = images_in(images)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    drawn_as = overlay_format or OverlayFormat.PNG
    overlays = overlay_paths(files, out, SUFFIXES[drawn_as]) if out is not None else {}
    with settings.client() as client, progress("Inspecting", len(files)) as step:
        report = _Report(files, overlays, as_json=as_json)
        inquiry = _Inquiry(client, reference, heatmap, max_regions, sensitivity, overlays, drawn_as, overlay_max_side)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for file, outcome in zip(files, pool.map(inquiry.of, files), strict=True):
                    report.add(file, outcome)
                    step()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                client.close()  # ends the calls that the pool's end would wait for
                raise
    report.end()
    if report.counts["error"]:
        raise typer.Exit(1)
    if fail_on_anomaly and report.counts["anomalous"]:
        raise typer.Exit(ANOMALY_FOUND)


class _Report:
    """Rows as they come, or one JSON document at the end."""

    def __init__(self, files: list[Path], overlays: dict[Path, Path], *, as_json: bool) -> None:
        self.counts = {"intact": 0, "anomalous": 0, "error": 0}
        self._overlays = overlays
        self._results: list[dict[str, Any]] | None = [] if as_json else None
        file = Column("file", max(len("file"), *(len(str(file)) for file in files)))
        overlay = (Column("overlay", 0),) if overlays else ()
        self._table = Table((file, *_report.RESULT_COLUMNS, *overlay))

    def add(self, file: Path, outcome: _report.Outcome) -> None:
        verdict = _report.verdict_of(outcome)
        self.counts[verdict] += 1
        drawn = isinstance(outcome, InferenceResult) and outcome.encoded_overlay is not None
        if self._results is None:
            overlay = [self._overlays[file].name] if drawn else []
            cells = [str(file), *_report.cells(outcome, verdict), *overlay]
            self._table.row(cells, {1: _report.COLORS[verdict]})
        else:
            path = str(self._overlays[file]) if drawn else None
            self._results.append({"file": str(file), **_report.as_json(outcome, verdict), "overlay": path})

    def end(self) -> None:
        total = sum(self.counts.values())
        if self._results is not None:
            say_json({"results": self._results, "summary": {"images": total, **self.counts}})
            return
        noun = "image" if total == 1 else "images"
        say("{0} {1}: {intact} intact, {anomalous} anomalous, {error} failed".format(total, noun, **self.counts))
