"""One setting of a sweep: what a reference is loaded with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from patchserve_client import LoadOptions, ScoringProfile
from patchserve_client._counted import counted

TITLES = ("profile", "input", "coreset", "references")
_WITHOUT_BANK = (ScoringProfile.SUBSPACE,)  # profiles without a bank, so without a coreset of it


@dataclass(frozen=True, slots=True)
class Setting:
    """The options in which the settings of a sweep differ. None: the default of the server."""

    profile: ScoringProfile
    input_px: int | Literal["auto"] | None = None  # the longer side of model inputs
    coreset_ratio: float | None = None  # None: the whole bank
    reference_count: int | None = None  # None: all reference images

    def options(self, fixed: LoadOptions) -> LoadOptions:
        """All options of the load: those that every setting has, and these."""
        own = LoadOptions(profile=self.profile, input_px=self.input_px, coreset_ratio=self.coreset_ratio)
        return {**fixed, **own}

    def cells(self) -> tuple[str, ...]:
        """The cells of the setting in a table, below TITLES."""
        return (
            self.profile.value,
            "default" if self.input_px is None else str(self.input_px),
            "all" if self.coreset_ratio is None else f"{100 * self.coreset_ratio:.3g} %",
            "all" if self.reference_count is None else str(self.reference_count),
        )

    def __str__(self) -> str:
        images = "all references" if self.reference_count is None else counted(self.reference_count, "reference")
        size = "" if self.input_px is None else f", input {self.input_px}"
        bank = "" if self.coreset_ratio is None else f", coreset {100 * self.coreset_ratio:.3g} %"
        return f"{self.profile.value}{size}{bank}, {images}"


@dataclass(frozen=True, slots=True)
class Axes:
    """The values that a sweep tries, each with each other. At least one on every axis."""

    profiles: Sequence[ScoringProfile]
    inputs_px: Sequence[int | Literal["auto"] | None] = (None,)
    coreset_ratios: Sequence[float | None] = (None,)
    reference_counts: Sequence[int | None] = (None,)

    def settings(self) -> Iterator[Setting]:
        """Every combination once. A profile without a bank has no coreset."""
        seen = set()
        axes = (self.profiles, self.inputs_px, self.coreset_ratios, self.reference_counts)
        for profile, input_px, ratio, count in itertools.product(*axes):
            setting = Setting(profile, input_px, None if profile in _WITHOUT_BANK else ratio, count)
            if setting not in seen:
                seen.add(setting)
                yield setting
