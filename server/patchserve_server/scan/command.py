"""What the command `patchserve scan` does, without a word of how it is typed and shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.process import configure_process
from patchserve_server.config import Configuration, Settings, read_configuration
from patchserve_server.domain.inspection import DEFAULT_MAX_REGIONS, OverlayFormat
from patchserve_server.domain.reference import Reference
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.engine import Work
from patchserve_server.scan.local_run import run_here
from patchserve_server.scan.options import DEFAULT_OVERLAY_SIDE_PX, Overlays, ScanOptions
from patchserve_server.scan.plan import Plan
from patchserve_server.scan.progress import Progress
from patchserve_server.scan.references import reference_of_file, reference_of_store
from patchserve_server.scan.results import Results, open_results
from patchserve_server.scan.scan import Run, Summary, scan
from patchserve_server.scan.sources import open_source

_TIMM: Final = re.compile(r"(timm:.+) \(layers ([0-9,]+)\)")  # as a reference names a network of timm


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What somebody wants to have scanned.

    Args:
        source: a folder, the URL of a bucket, or a file of paths.
        out: the results: a folder, or the URL of a bucket.
        reference_id: of the store; of a file: it gets this name.
        store: a folder or a URL; None: the file has the reference.
        reference_file: None: the store has it.
        flags: settings of the server that were typed, by name.
        config_file: of settings.
        ray: the address of a cluster; None: this process does it.
        workers: of the cluster; None: as many as fit.
        restart: remove what is in the results and begin again.
    """

    source: str
    out: str
    reference_id: str
    store: str | None = None
    reference_file: Path | None = None
    flags: Mapping[str, str | bool] | None = None
    config_file: Path | None = None
    overlays: str = Overlays.NONE.value
    overlay_format: str = OverlayFormat.JPEG.value
    overlay_max_side_px: int = DEFAULT_OVERLAY_SIDE_PX
    max_regions: int = DEFAULT_MAX_REGIONS
    sensitivity: float | None = None
    white_level: int | None = None
    ray: str | None = None
    workers: int | None = None
    restart: bool = False


def run_request(request: ScanRequest, progress: Progress) -> Summary:
    """Scans, or goes on with a scan that was killed.

    Raises:
        ConfigurationError: a setting cannot be used.
        ScanError, PatchserveError: the scan cannot begin or go on.
    """
    configuration = read_configuration(request.flags or {}, request.config_file)
    configure_process()
    reference = _reference(request)
    with open_results(request.out) as results:
        source = open_source(request.source, results.name)
        settings = settings_for(configuration, reference)
        options = ScanOptions(
            source=source.name,
            reference_id=request.reference_id,
            revision=reference.revision,
            sensitivity=request.sensitivity,
            max_regions=request.max_regions,
            overlays=Overlays(request.overlays),
            overlay_format=OverlayFormat(request.overlay_format),
            overlay_max_side_px=request.overlay_max_side_px,
            white_level=request.white_level,
            decode=settings.decode,
        )
        work = Work(settings, options, results.name, composition.open_detector)
        run = _run(request, configuration, work, reference, results, progress=progress)
        return scan(source, reference, options, results, run=run, progress=progress, restart=request.restart)


def _reference(request: ScanRequest) -> Reference:
    if request.reference_file is not None:
        return reference_of_file(request.reference_file, request.reference_id)
    if request.store is None:
        raise ValueError("a reference is in a store or in a file")
    return reference_of_store(request.store, request.reference_id)


def settings_for(configuration: Configuration, reference: Reference) -> Settings:
    """The settings of the engine. What nobody has set is that of the server that made the reference."""
    spec = reference.model.spec
    chosen: dict[str, object] = {"store": None}  # a server may use it: nothing is written there
    if configuration.origins["precision"].kind == "default":
        chosen["precision"] = spec.precision
    if configuration.origins["backbone"].kind == "default":
        of_timm = _TIMM.fullmatch(spec.backbone)
        chosen["backbone"] = spec.backbone if of_timm is None else of_timm[1]
        chosen["backbone_layers"] = None if of_timm is None else of_timm[2]
    return configuration.settings.model_copy(update=chosen)


def _run(
    request: ScanRequest,
    configuration: Configuration,
    work: Work,
    reference: Reference,
    results: Results,
    *,
    progress: Progress,
) -> Run:
    if request.ray is None:
        return partial(run_here, work, reference, results, progress=progress)
    from patchserve_server.scan.ray_run import Pool, run_on_ray  # noqa: PLC0415 - only for clusters

    settings, device = configuration.settings, configuration.settings.device
    pool = Pool(
        address=request.ray,
        workers=request.workers,
        threads=None if configuration.origins["threads"].kind == "default" else settings.threads,
        uses_gpus=None if device == "auto" else device != "cpu",
    )

    def run(_plan: Plan, numbers: Sequence[int]) -> Counts:
        return run_on_ray(work, pool, numbers, progress)

    return run
