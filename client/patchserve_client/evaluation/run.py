"""Asks a running server about a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from patchserve_client import (
    AnomalyScore,
    Client,
    InferenceResult,
    NotFound,
    PatchserveError,
    ReferenceInfo,
    ScoringProfile,
)
from patchserve_client.evaluation.dataset import LabeledImage, read_mask
from patchserve_client.evaluation.pixel_metrics import PixelTally


class ReferenceExistsError(ValueError):
    """A reference of that id is there already; it is somebody's, and is neither replaced nor deleted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server said of one test image."""

    image: LabeledImage
    anomaly: AnomalyScore
    damage_percentage: float

    @property
    def is_right(self) -> bool:
        return self.anomaly.is_anomalous == (self.image.defect is not None)

    @property
    def margin(self) -> float:
        """How far the score lies on the right side of its threshold; negative for a mistake."""
        distance = self.anomaly.score - 0.5
        return distance if self.image.defect else -distance


@dataclass(slots=True)
class Findings:
    """What the server said of all test images."""

    verdicts: list[Verdict] = field(default_factory=list)
    failed: list[tuple[LabeledImage, PatchserveError]] = field(default_factory=list)
    pixels: PixelTally = field(default_factory=PixelTally)


@contextlib.contextmanager
def loaded_reference(
    client: Client,
    images: Iterable[Path],
    reference_id: str,
    *,
    profile: ScoringProfile | None = None,
    coreset_ratio: float | None = None,
    coreset_max_patches: int | None = None,
    search_radius: float | None = None,
    approximate_search: bool | None = None,
    keep: bool = False,
) -> Iterator[ReferenceInfo]:
    """A new reference on the server, deleted at the end unless it is to be kept.

    Raises:
        ReferenceExistsError: the server holds one of this id.
        PatchserveError: what the server says.
    """
    with contextlib.suppress(NotFound):
        client.get_reference(reference_id)
        raise ReferenceExistsError(f'The server holds a reference "{reference_id}" already.')
    reference = client.load_reference(
        images,
        reference_id,
        profile=profile,
        coreset_ratio=coreset_ratio,
        coreset_max_patches=coreset_max_patches,
        search_radius=search_radius,
        approximate_search=approximate_search,
    )
    try:
        yield reference
    except BaseException:
        if not keep:
            with contextlib.suppress(PatchserveError):  # the first error says more
                client.delete_reference(reference_id, expected_revision=reference.revision)
        raise
    if not keep:
        client.delete_reference(reference_id, expected_revision=reference.revision)


def inspect(
    client: Client,
    images: Sequence[LabeledImage],
    reference: ReferenceInfo,
    *,
    frame_timeout_s: float | None = None,
    step: Callable[[], None] = lambda: None,
) -> Findings:
    """Streams the test images through the server. An image that it refuses is noted, and the rest goes on.

    Args:
        client: a connection to the server that holds the reference.
        images: what to inspect, at least one.
        reference: what to compare with, in exactly this revision.
        frame_timeout_s: how long one image may take, in seconds; None: no limit.
        step: called after each image.

    Raises:
        PatchserveError: the stream ended before its time, or no image at all was inspected.
        DatasetError: a mask is damaged.
    """
    findings = Findings()
    results = client.infer_stream(
        (image.path for image in images),
        reference.reference_id,
        score_map=True,
        max_regions=0,
        frame_timeout_s=frame_timeout_s,
        expected_revision=reference.revision,
    )
    with contextlib.closing(results):
        for image, frame in zip(images, results, strict=True):
            if frame.result is not None:
                findings.verdicts.append(Verdict(image, frame.result.anomaly, frame.result.damage.damage_percentage))
                _tally(findings, image, frame.result)
            elif frame.error is not None:
                findings.failed.append((image, frame.error))
            step()
    if not findings.verdicts:
        raise findings.failed[0][1]
    return findings


def _tally(findings: Findings, image: LabeledImage, result: InferenceResult) -> None:
    if result.score_map is None:
        raise TypeError("The server sent no score map, though one was asked for.")
    if image.defect is None:
        width_px, height_px = image.size_px
        findings.pixels.add(result.score_map, np.zeros((height_px, width_px), np.bool_))
    elif image.mask_path is not None:
        findings.pixels.add(result.score_map, read_mask(image.mask_path))
