"""The revision: one digest over everything that decides scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np

from patchserve_server.domain.reference import ReferenceModel
from patchserve_server.domain.reference_id import Revision


def revision_of(model: ReferenceModel) -> Revision:
    """SHA-256 (hexadecimal) over spec, options, calibration and arrays. Equal content has an equal revision."""
    digest = hashlib.sha256()
    content = {
        "spec": dataclasses.asdict(model.spec),
        "options": {**dataclasses.asdict(model.options), "profile": model.options.profile.value},
        "calibration": {**dataclasses.asdict(model.calibration), "method": model.calibration.method.value},
    }
    digest.update(json.dumps(content, sort_keys=True).encode())
    for name in (array.name for array in dataclasses.fields(model.bank)):  # the digest depends on their order
        array: np.ndarray = np.ascontiguousarray(getattr(model.bank, name))
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return Revision(digest.hexdigest())
