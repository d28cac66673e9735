"""`patchserve scan`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._failures import INTERRUPTED, fail
from patchserve_client.cli._formats import TEXT, OutputFormat, OutputOption, print_results
from patchserve_client.cli._output import print_line, print_note
from patchserve_client.cli._paths import EXISTING_FILE, path_from
from patchserve_client.cli._white_level import WhiteLevelOption
from patchserve_command._scan_progress import ScanProgress
from patchserve_command._scan_text import summary_lines

if TYPE_CHECKING:
    from patchserve_server.scan.command import ScanRequest
    from patchserve_server.scan.scan import Summary

_REFERENCE: dict[str, Any] = {"rich_help_panel": "Reference"}
_RESULTS: dict[str, Any] = {"rich_help_panel": "Results"}
_ENGINE: dict[str, Any] = {"rich_help_panel": "Engine (the settings of patchserve-server)"}
_CLUSTER: dict[str, Any] = {"rich_help_panel": "Cluster"}
_URLS = ("s3://", "gs://", "az://", "memory://")


def _place(text: str) -> str:
    """A folder or a URL."""
    return text if text.startswith(_URLS) else str(path_from(text))


@connected
def scan(
    settings: Settings,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            parser=_place,
            help="Folder, s3://, gs:// or az:// URL, or a file with a path or URL in each line.",
        ),
    ],
    *,
    out: Annotated[
        str,
        typer.Option(**_RESULTS, metavar="DIR|URL", parser=_place, help="Results: a folder, or a URL of a bucket."),
    ],
    reference: Annotated[str, typer.Option(**_REFERENCE, metavar="ID", help="Reference to compare with.")] = "default",
    store: Annotated[
        str | None,
        typer.Option(
            **_REFERENCE,
            metavar="DIR|URL",
            parser=_place,
            help="Store of the reference, which servers may be using. Without it, the reference is that of --server.",
        ),
    ] = None,
    reference_file: Annotated[
        Path | None,
        typer.Option(
            **_REFERENCE, **EXISTING_FILE, metavar="FILE", help="File of `reference export` with the reference."
        ),
    ] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(**_REFERENCE, metavar="S", show_default="that of the reference", help="Sensitivity, such as 1.2."),
    ] = None,
    white_level: WhiteLevelOption = None,
    overlays: Annotated[
        Literal["none", "anomalous", "all"], typer.Option(**_RESULTS, help="Write overlays of these images.")
    ] = "none",
    overlay_format: Annotated[
        Literal["jpeg", "png"], typer.Option(**_RESULTS, help="File format of overlays.")
    ] = "jpeg",
    overlay_max_side: Annotated[
        int, typer.Option(**_RESULTS, metavar="PX", help="Longer side of overlays; 0: that of the image.")
    ] = 1280,
    max_regions: Annotated[
        int, typer.Option(**_RESULTS, min=0, max=1000, metavar="N", help="Most regions of an image.")
    ] = 16,
    restart: Annotated[
        bool,
        typer.Option("--restart", **_RESULTS, help="Remove what an earlier scan has written there, and begin again."),
    ] = False,
    backbone: Annotated[
        str | None,
        typer.Option(**_ENGINE, metavar="NAME", show_default="that of the reference", help="As of `serve`."),
    ] = None,
    backbone_layers: Annotated[
        str | None, typer.Option(**_ENGINE, metavar="NUMBERS", help="Layers of timm:NAME, as of `serve`.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(**_ENGINE, **EXISTING_FILE, metavar="FILE", help="Weights, as of `serve`.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(**_ENGINE, metavar="DEVICE", show_default="auto", help="auto, cpu, cuda or cuda:N.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            **_ENGINE, metavar="PRECISION", show_default="that of the reference", help="fp32, bf16, int8 or auto."
        ),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(**_ENGINE, metavar="WHERE", show_default="cpu", help="Where JPEGs are decoded: cpu or device."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            **_ENGINE,
            min=1,
            metavar="N",
            show_default="all cores; on a cluster those of the smallest node, at most 8",
            help="Threads of the backbone of each process.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(**_ENGINE, **EXISTING_FILE, metavar="FILE", help="TOML file with settings, as of `serve`."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(**_CLUSTER, metavar="ADDRESS", help="Ray cluster that inspects: HOST:PORT of its head, or auto."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            **_CLUSTER, min=1, metavar="N", show_default="as many as fit", help="Processes that inspect there."
        ),
    ] = None,
    output: OutputOption = TEXT,
) -> None:
    """Inspect millions of images without a server, with the same verdicts.

    Writes the verdicts and regions of all images to DIR/verdicts/*.parquet. After a kill or Ctrl-C, the same command
    goes on: what is published is not done again. An image that cannot be read or decoded is a row with an error.
    Requires the engine and Parquet: pip install ".[server,ray]" in a checkout, and ".[store]" for buckets.

    Exit codes: 0 every image has its row; 1 it cannot begin or go on; 2 wrong usage; 130 after Ctrl-C.
    """
    if store is not None and reference_file is not None:
        raise typer.BadParameter("--store and --reference-file exclude each other.")
    if workers is not None and ray is None:
        raise typer.BadParameter("--workers needs --ray ADDRESS.")
    if output not in (TEXT, OutputFormat.JSON):
        raise typer.BadParameter("--output is text or json: the verdicts are in Parquet.")
    typed = {
        "backbone": backbone,
        "backbone_layers": backbone_layers,
        "weights": weights,
        "device": device,
        "precision": precision,
        "decode": decode,
        "threads": threads,
    }
    with _server_packages(), _reference_file(settings, reference, store, reference_file) as file:
        from patchserve_server.scan.command import ScanRequest  # noqa: PLC0415 - the extra `server`

        request = ScanRequest(
            source=source,
            out=out,
            reference_id=reference,
            store=store,
            reference_file=file,
            flags={name: str(value) for name, value in typed.items() if value is not None},
            config_file=config,
            overlays=overlays,
            overlay_format=overlay_format,
            overlay_max_side_px=overlay_max_side,
            max_regions=max_regions,
            sensitivity=sensitivity,
            white_level=white_level,
            ray=ray,
            workers=workers,
            restart=restart,
        )
        summary = _run(request)
    if output is TEXT:
        for line in summary_lines(summary, out):
            print_line(line)
    else:
        print_results(output, summary.to_json())


def _run(request: ScanRequest) -> Summary:
    """The scan with its progress on stderr. What it raises becomes a line, and the exit code."""
    from patchserve_server.config import ConfigurationError  # noqa: PLC0415 - the extra `server`
    from patchserve_server.domain.errors import InvalidInputError, PatchserveError  # noqa: PLC0415 - as above
    from patchserve_server.scan.command import run_request  # noqa: PLC0415 - as above
    from patchserve_server.scan.errors import ScanError  # noqa: PLC0415 - as above

    progress = ScanProgress()
    try:
        with progress:
            return run_request(request, progress)
    except ConfigurationError as error:
        raise typer.BadParameter("; ".join(map(str, error.problems))) from error
    except InvalidInputError as error:
        raise typer.BadParameter(error.message) from error
    except PatchserveError as error:
        fail(error.message)
    except ScanError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print_note(f"Interrupted{progress.text_of_end}. The same command goes on.")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _server_packages() -> Iterator[None]:
    """Say what to install where a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("patchserve"):
            raise
        _fail_without(error.name.partition(".")[0])


def _fail_without(package: str) -> NoReturn:
    fail(f'Scanning requires {package}: `pip install ".[server,ray]"` in a checkout of patchserve.')


@contextmanager
def _reference_file(settings: Settings, reference: str, store: str | None, file: Path | None) -> Iterator[Path | None]:
    """The file with the reference: the one that was named, or one that the server exports. None: a store has it."""
    if store is not None or file is not None:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "reference.patchserve"
        with settings.client() as client:
            client.export_reference(reference, exported)
        yield exported
