"""The options that `infer` and `stream` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from patchserve_client import Client, InferenceResult, OutputOptions
from patchserve_client._options import RequestOptions
from patchserve_client.cli._durations import INTERVAL
from patchserve_client.cli._formats import TEXT, OutputFormat, OutputOption
from patchserve_client.cli._overlays import OverlayStyle, takes_overlay_style
from patchserve_client.cli._paths import NEW_FOLDER
from patchserve_client.cli._results_file import ResultsFile, results_path
from patchserve_client.cli._saved_anomalies import SavedAnomalies, SavedAnomaliesLimits
from patchserve_client.cli._signatures import expanded
from patchserve_client.cli._verdict_options import VerdictOptions, takes_verdict_options
from patchserve_client.cli._white_level import WhiteLevelOption

FILES_PANEL: dict[str, Any] = {"rich_help_panel": "Files"}
ANOMALY_FOUND = 3
_SAVED_COUNT, _SAVED_AGE_DAYS = 1000, 30


@dataclass(frozen=True, slots=True)
class Records:
    """What `--results` and `--save-anomalies` write; None: the option is not used."""

    results: ResultsFile | None
    saved: SavedAnomalies | None


@dataclass(frozen=True, slots=True)
class InspectionOptions:
    """The values of the options. `out` is the folder for overlays."""

    reference: str
    out: Path | None
    style: OverlayStyle | None  # None: none of its options was used
    verdicts: VerdictOptions
    white_level: int | None
    output: OutputFormat
    fail_on_anomaly: bool
    results_file: Path | None
    anomalies_folder: Path | None
    anomalies_limits: SavedAnomaliesLimits

    def request(self, client: Client, *, overlay: bool = False) -> RequestOptions:
        """What to request of the server. `overlay`: something else than these options needs overlays.

        Raises:
            typer.BadParameter: nothing needs overlays, but they have options.
            PatchserveError: the server must be asked, and did not answer.
        """
        needs_overlays = overlay or self.out is not None or self.anomalies_folder is not None
        if self.style is not None and not needs_overlays:
            raise typer.BadParameter(
                "--heatmap-scale, --exact, --overlay-format and --overlay-max-side need an option that makes overlays, "
                "such as --out DIR."
            )
        verdicts = self.verdicts.for_request(client, self.reference)
        style = self.overlay_style.for_request if needs_overlays else OutputOptions()
        return RequestOptions(**verdicts, **style, white_level=self.white_level)

    @property
    def written_folders(self) -> tuple[Path, ...]:
        """The folders that get images: these are not images to inspect."""
        return tuple(folder for folder in (self.out, self.anomalies_folder) if folder is not None)

    @property
    def overlay_style(self) -> OverlayStyle:
        """How overlays are requested and written."""
        return self.style or OverlayStyle()

    def drawn(self, result: InferenceResult) -> bytes:
        """The file to write for a result with an overlay."""
        return self.overlay_style.drawn(result, self.verdicts.threshold)

    @contextlib.contextmanager
    def opened_records(self) -> Iterator[Records]:
        """Open the files, before the first image is inspected.

        Raises:
            OSError: a file or folder cannot be written.
        """
        with contextlib.ExitStack() as files:
            if self.out is not None:
                self.out.mkdir(parents=True, exist_ok=True)
            results = files.enter_context(ResultsFile(self.results_file, self.verdicts)) if self.results_file else None
            saved = None
            if self.anomalies_folder:
                saved = files.enter_context(
                    SavedAnomalies(self.anomalies_folder, self.anomalies_limits, self.overlay_style, self.verdicts)
                )
            yield Records(results, saved)

    def exit_with(self, counts: Mapping[str, int]) -> None:
        """Exit with the code for these verdicts.

        Raises:
            typer.Exit: with code 1 if there were errors, or 3 if an anomaly must be reported.
        """
        if counts["error"]:
            raise typer.Exit(1)
        if self.fail_on_anomaly and counts["anomalous"]:
            raise typer.Exit(ANOMALY_FOUND)


@takes_overlay_style
@takes_verdict_options
def _inspection_options(
    *,
    reference: Annotated[str, typer.Option(metavar="ID", help="Reference to compare with.")] = "default",
    verdicts: VerdictOptions,
    out: Annotated[
        Path | None,
        typer.Option(**FILES_PANEL, **NEW_FOLDER, metavar="DIR", help="Folder for an overlay of every image."),
    ] = None,
    style: OverlayStyle | None,
    white_level: WhiteLevelOption = None,
    results: Annotated[
        Path | None,
        typer.Option(
            **FILES_PANEL,
            metavar="FILE",
            parser=results_path,
            help="Append a line for each image to a .csv or .jsonl file.",
        ),
    ] = None,
    save_anomalies: Annotated[
        Path | None,
        typer.Option(
            **FILES_PANEL,
            **NEW_FOLDER,
            metavar="DIR",
            help="Save each anomalous image with its overlay and result in this folder.",
        ),
    ] = None,
    save_max_count: Annotated[
        int | None,
        typer.Option(
            **FILES_PANEL, min=1, metavar="N", show_default=str(_SAVED_COUNT), help="Keep the newest N saved anomalies."
        ),
    ] = None,
    save_max_age: Annotated[
        float | None,
        typer.Option(
            **FILES_PANEL, **INTERVAL, show_default=f"{_SAVED_AGE_DAYS}d", help="Delete saved anomalies that are older."
        ),
    ] = None,
    output: OutputOption = TEXT,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with code 3 if an image is anomalous.")
    ] = False,
) -> InspectionOptions:
    """The values of the options.

    Raises:
        typer.BadParameter: options do not fit together.
    """
    if save_anomalies is None and (save_max_count, save_max_age) != (None, None):
        raise typer.BadParameter("--save-max-count and --save-max-age need --save-anomalies DIR.")
    max_age = timedelta(days=_SAVED_AGE_DAYS) if save_max_age is None else timedelta(seconds=save_max_age)
    return InspectionOptions(
        reference=reference,
        out=out,
        style=style,
        verdicts=verdicts,
        white_level=white_level,
        output=output,
        fail_on_anomaly=fail_on_anomaly,
        results_file=results,
        anomalies_folder=save_anomalies,
        anomalies_limits=SavedAnomaliesLimits(save_max_count or _SAVED_COUNT, max_age),
    )


takes_inspection_options = expanded("options", _inspection_options)
"""Decorator of a command with a parameter `options: InspectionOptions`."""
