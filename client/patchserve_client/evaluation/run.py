"""Inspects the images of a dataset with a running server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np

from patchserve_client import (
    AnomalyScore,
    Client,
    InferenceResult,
    LoadOptions,
    NotFound,
    PatchserveError,
    ReferenceInfo,
)
from patchserve_client.evaluation.dataset import LabeledImage, read_mask
from patchserve_client.evaluation.pixel_metrics import PixelHistograms

_UNKNOWN_OUTCOMES = ("CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
_END_OF_LOAD_S = 10.0  # an interrupted load ends with its batch
_POLL_S = 0.05


class ReferenceExistsError(ValueError):
    """The server already has a reference with this id. It may be in use, so it is not replaced or deleted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one test image."""

    image: LabeledImage
    anomaly: AnomalyScore
    damage_percentage: float

    @property
    def kind(self) -> str:
        """What it is, such as "missed"."""
        if self.is_correct:
            return "correct"
        return "missed" if self.image.defect else "false alarm"

    @property
    def is_correct(self) -> bool:
        return self.anomaly.is_anomalous == (self.image.defect is not None)

    @property
    def margin(self) -> float:
        """The distance of the score from the threshold on the correct side; negative for a mistake."""
        distance = self.anomaly.score - 0.5
        return distance if self.image.defect else -distance


@dataclass(slots=True)
class Findings:
    """The verdicts on all test images, the images that failed, and the pixel histograms."""

    verdicts: list[Verdict] = field(default_factory=list)
    failed: list[tuple[LabeledImage, PatchserveError]] = field(default_factory=list)
    pixels: PixelHistograms = field(default_factory=PixelHistograms)


@contextlib.contextmanager
def loaded_reference(
    client: Client,
    images: Iterable[Path],
    reference_id: str,
    *,
    keep: bool = False,
    **options: Unpack[LoadOptions],
) -> Iterator[ReferenceInfo]:
    """Yields a new reference on the server, and deletes it at the end unless `keep`.

    Raises:
        ReferenceExistsError: the server already has a reference with this id.
        PatchserveError: the server rejected the load, or the connection failed.
    """
    with contextlib.suppress(NotFound):
        client.get_reference(reference_id)
        raise ReferenceExistsError(f'The server already has a reference "{reference_id}".')
    reference: ReferenceInfo | None = None
    try:
        reference = client.load_reference(images, reference_id, **options)
        yield reference
        if not keep:
            client.delete_reference(reference_id, expected_revision=reference.revision)
    except BaseException as error:  # also an interrupt of the deletion
        with contextlib.suppress(PatchserveError):  # the first error is more useful
            if reference is not None and not keep:
                client.delete_reference(reference_id, expected_revision=reference.revision)
            elif reference is None and _may_have_loaded(error):
                _delete_what_was_loaded(client, reference_id)
        raise


def _may_have_loaded(error: BaseException) -> bool:
    """Whether the server may have finished a load that ended with this error."""
    return not isinstance(error, PatchserveError) or error.code in _UNKNOWN_OUTCOMES


def _delete_what_was_loaded(client: Client, reference_id: str) -> None:
    """Delete what an interrupted load has become.

    The server may hear of the interrupt after the next call. So its load must have ended before the deletion.
    """
    ends_at_s = time.monotonic() + _END_OF_LOAD_S
    with contextlib.suppress(PatchserveError):  # it cannot say so, but may delete
        while client.list_loads(reference_id) and time.monotonic() < ends_at_s:
            time.sleep(_POLL_S)
    client.delete_reference(reference_id)


def inspect(
    client: Client,
    images: Sequence[LabeledImage],
    reference: ReferenceInfo,
    *,
    frame_timeout_s: float | None = None,
    step: Callable[[], None] = lambda: None,
) -> Findings:
    """Stream the test images through the server. The error of an image is recorded; the other images continue.

    Args:
        client: a client of the server that has the reference.
        images: the images to inspect, at least one.
        reference: the reference to compare with, in exactly this revision.
        frame_timeout_s: how long one image may take, in seconds; None: no limit.
        step: called after each image.

    Raises:
        PatchserveError: the stream ended early, or every image failed.
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
                _count_pixels(findings, image, frame.result)
            elif frame.error is not None:
                findings.failed.append((image, frame.error))
            step()
    if not findings.verdicts:
        raise findings.failed[0][1]
    return findings


def _count_pixels(findings: Findings, image: LabeledImage, result: InferenceResult) -> None:
    if result.score_map is None:
        raise TypeError("The server sent no score map, although one was requested.")
    if image.defect is None:
        width_px, height_px = image.size_px
        findings.pixels.add(result.score_map, np.zeros((height_px, width_px), np.bool_))
    elif image.mask_path is not None:
        findings.pixels.add(result.score_map, read_mask(image.mask_path))
