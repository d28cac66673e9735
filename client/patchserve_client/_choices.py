"""The enumerations and ranges of arguments and results."""

from __future__ import annotations

import enum
from typing import Final

SENSITIVITY_RANGE: Final[tuple[float, float]] = (0.1, 10)
MAX_WHITE_LEVEL: Final = 65_535


class LoadMode(enum.StrEnum):
    """What a load does to an existing reference."""

    REPLACE = "replace"
    APPEND = "append"


class LoadStage(enum.StrEnum):
    """The stages of a load on the server, in this order."""

    RECEIVE = "receive"
    QUANTIZE = "quantize"
    EMBED = "embed"
    CORESET = "coreset"
    CALIBRATE = "calibrate"
    SAVE = "save"


class ScoringProfile(enum.StrEnum):
    """How a reference scores: like the notebook or the PatchCore paper, with the best verdicts, or by a subspace."""

    NOTEBOOK = "notebook"
    PAPER = "paper"
    VERDICT = "verdict"
    SUBSPACE = "subspace"


class ReferenceViews(enum.StrEnum):
    """Whether mirrored and turned copies of the reference images are part of the bank."""

    NONE = "none"
    AUTO = "auto"
    ALL = "all"


class AspectRatio(enum.StrEnum):
    """What happens to the proportions of an image: it becomes a square, or keeps those of the first reference image."""

    SQUEEZE = "squeeze"
    KEEP = "keep"


class CalibrationMethod(enum.StrEnum):
    """Where the normal scores of a calibration come from."""

    LEAVE_ONE_OUT = "leave_one_out"
    AUGMENTED_VIEWS = "augmented_views"


class DriftState(enum.StrEnum):
    """What the comparison of recent scores with the normal scores of a calibration says."""

    TOO_FEW_IMAGES = "too_few_images"
    NONE = "none"
    MORE_DAMAGE = "more_damage"
    SCENE_CHANGED = "scene_changed"


class ReferenceOperation(enum.StrEnum):
    """What made a revision of a reference."""

    LOAD = "load"
    APPEND = "append"
    TUNE = "tune"
    IMPORT = "import"


class HeatmapScale(enum.StrEnum):
    """How raw distances become colors: stretched for each image, or fixed around the threshold."""

    RELATIVE = "relative"
    CALIBRATED = "calibrated"


class OverlayFormat(enum.StrEnum):
    """The file format of an overlay."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class OverflowPolicy(enum.StrEnum):
    """What the server does with a new frame while `max_in_flight` frames are in progress."""

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


class ResultOrdering(enum.StrEnum):
    """The order of the results of a stream."""

    INPUT = "input"
    COMPLETION = "completion"


class NoticeKind(enum.StrEnum):
    """The subject of a notice. The last two come from this client, if the stream reconnects."""

    DRAINING = "draining"
    REFERENCE_CHANGED = "reference_changed"
    RECONNECTING = "reconnecting"
    RESUMED = "resumed"
