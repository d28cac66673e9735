"""What a sweep knows about one setting when it has measured it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np
from numpy.typing import NDArray

from patchserve_client import ReferenceInfo
from patchserve_client.evaluation.image_metrics import ImageMetrics, image_metrics
from patchserve_client.evaluation.intervals import Interval, intervals
from patchserve_client.evaluation.run import Findings
from patchserve_client.evaluation.setting import Setting
from patchserve_client.evaluation.verdict_pictures import VerdictPicture


@dataclass(frozen=True)
class Outcome:
    """A setting that was measured."""

    setting: Setting
    reference: ReferenceInfo
    findings: Findings
    pictures: tuple[VerdictPicture, ...]  # of the worst verdicts
    load_s: float  # until the server used the reference
    inspect_s: float  # for all test images, sent as fast as the server takes them

    @property
    def image_ms(self) -> float:
        """What one image costs the server: backbone and search, the median over images that came alone."""
        return median(picture.timing.embed_ms + picture.timing.search_ms for picture in self.pictures)

    @property
    def wall_ms(self) -> float:
        """The time from image to image while all test images were sent, network and decoding included."""
        return 1000 * self.inspect_s / len(self.findings.verdicts)

    @property
    def bank_mib(self) -> float:
        return self.reference.bank_bytes / 2**20

    @property
    def input_text(self) -> str:
        """What the backbone saw, as in "320 x 320"."""
        return f"{self.reference.input_width_px} x {self.reference.input_height_px}"

    @property
    def labels(self) -> NDArray[np.bool_]:
        """(N,) whether each image is defective."""
        return np.array([verdict.image.defect is not None for verdict in self.findings.verdicts])

    @property
    def ratios(self) -> NDArray[np.float64]:
        """(N,) raw score / threshold."""
        return np.array([verdict.anomaly.ratio for verdict in self.findings.verdicts])

    @cached_property
    def metrics(self) -> ImageMetrics:
        damage = np.array([verdict.damage_percentage for verdict in self.findings.verdicts])
        return image_metrics(self.labels, self.ratios, damage)

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        return intervals(self.labels, self.ratios)


@dataclass(frozen=True, slots=True)
class Failure:
    """A setting that could not be measured."""

    setting: Setting
    reason: str  # one line
