"""The revision: one digest over everything that decides scores."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json

import numpy as np

from patchserve_server.domain.reference import ReferenceModel
from patchserve_server.domain.reference_id import Revision
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.domain.sensitivity import DEFAULT_SENSITIVITY


def revision_of(model: ReferenceModel) -> Revision:
    """SHA-256 (hexadecimal) over everything that decides scores. Equal content has an equal revision.

    A sensitivity of 1 is left out, so that references from before there was one keep their revisions; so are options
    that are newer than version 3 of the manifest, if they have their defaults. So are the list of normal scores and the
    false alarm rates of the calibration: nothing depends on them.
    """
    digest = hashlib.sha256()
    calibration = dataclasses.asdict(model.calibration)
    del calibration["normal_scores"]["scores"], calibration["false_alarm_rate"], calibration["false_alarm_rate_upper"]
    content: dict[str, object] = {
        "spec": dataclasses.asdict(model.spec),
        "options": _options_content(model.options),
        "calibration": calibration,
    }
    if model.sensitivity != DEFAULT_SENSITIVITY:
        content["sensitivity"] = model.sensitivity
    digest.update(json.dumps(content, sort_keys=True, default=_value_of).encode())
    for name in (array.name for array in dataclasses.fields(model.bank)):  # the digest depends on their order
        array: np.ndarray = np.ascontiguousarray(getattr(model.bank, name))
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return Revision(digest.hexdigest())


def _value_of(choice: enum.Enum) -> object:
    return choice.value


def _options_content(options: ReferenceOptions) -> dict[str, object]:
    newer, defaults = ("input", "views", "scales", "false_alarm_rate", "white_level"), ReferenceOptions()
    content = dataclasses.asdict(options)
    for name in newer:
        if getattr(options, name) == getattr(defaults, name):
            del content[name]
    return content
