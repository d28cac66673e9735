"""Measures one setting of a sweep with a running server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchserve_client import Client, InvalidArgument, LoadOptions, PatchserveError, ReferenceInfo
from patchserve_client.evaluation.dataset import Dataset, chosen_references
from patchserve_client.evaluation.outcome import Failure, Outcome
from patchserve_client.evaluation.run import ReferenceExistsError, inspect, loaded_reference
from patchserve_client.evaluation.setting import Setting
from patchserve_client.evaluation.verdict_pictures import drawn_verdicts, worst_verdicts

_ENDING_CODES = ("UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED")  # the next setting would end like this one


class UnknownOptionError(ValueError):
    """The server is older than this client, and does not know an option of the setting."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What all settings have in common."""

    dataset: Dataset
    fixed: LoadOptions  # options of every load, besides those of the setting
    reference_id: str
    seed: int | None  # of the choice of reference images; None: the first ones
    frame_timeout_s: float | None = None

    def references(self, setting: Setting) -> tuple[Path, ...]:
        """The reference images of a setting.

        Raises:
            DatasetError: there are too few.
        """
        return chosen_references(self.dataset, setting.reference_count, self.seed)

    def image_count(self, setting: Setting) -> int:
        """How many images are sent for a setting."""
        return len(self.references(setting)) + len(self.dataset.images)


def measured(
    client: Client, sweep: Sweep, setting: Setting, step: Callable[[], None] = lambda: None
) -> Outcome | Failure:
    """Load a reference with this setting, inspect all test images, draw the worst verdicts, and delete the reference.

    A setting that the server refuses is a Failure.

    Args:
        client: a client of the server.
        sweep: what all settings have in common.
        setting: the setting to measure.
        step: called after each image that was sent.

    Raises:
        PatchserveError: there is no use in trying another setting, as without a server.
        DatasetError: a mask is damaged.
    """
    try:
        return _measured(client, sweep, setting, step)
    except PatchserveError as error:
        if error.code in _ENDING_CODES:
            raise
        return Failure(setting, _reason(error, setting))
    except (ReferenceExistsError, UnknownOptionError) as error:
        return Failure(setting, str(error))


def _measured(client: Client, sweep: Sweep, setting: Setting, step: Callable[[], None]) -> Outcome:
    started = time.perf_counter()
    images = _counted(sweep.references(setting), step)
    with loaded_reference(client, images, sweep.reference_id, **setting.options(sweep.fixed)) as reference:
        _check_known(setting, reference)
        loaded = time.perf_counter()
        findings = inspect(client, sweep.dataset.images, reference, frame_timeout_s=sweep.frame_timeout_s, step=step)
        inspected = time.perf_counter()
        pictures = tuple(drawn_verdicts(client, reference, worst_verdicts(findings.verdicts)))
        return Outcome(setting, reference, findings, pictures, loaded - started, inspected - loaded)


def _counted(images: Sequence[Path], step: Callable[[], None]) -> Iterator[Path]:
    for image in images:
        yield image
        step()


def _check_known(setting: Setting, reference: ReferenceInfo) -> None:
    """Check that the server did what was asked. An older one ignores fields that it does not know.

    Raises:
        UnknownOptionError: it did not.
    """
    if reference.profile is not setting.profile:
        raise UnknownOptionError(_unknown(f"the profile {setting.profile}"))
    if setting.input_px is not None and reference.input_px != setting.input_px:
        raise UnknownOptionError(_unknown("the size of model inputs, --input"))


def _reason(error: PatchserveError, setting: Setting) -> str:
    if isinstance(error, InvalidArgument) and any(one.field == "profile" for one in error.field_violations):
        return _unknown(f"the profile {setting.profile}")
    return " ".join(f"{error.message} ({error.reason or error.code})".split())


def _unknown(option: str) -> str:
    return f"This server is too old: it does not know {option}."
