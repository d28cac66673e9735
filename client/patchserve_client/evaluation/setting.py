"""One setting of a sweep: what a reference is loaded with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from patchserve_client import LoadOptions, ScoringProfile
from patchserve_client._counted import counted

_DEFAULT_SIDE_PX = 224
_WITHOUT_BANK = ("subspace",)  # profiles that have no bank, so no coreset of it


@dataclass(frozen=True, slots=True)
class Setting:
    """The options in which the settings of a sweep differ. None: the option is left out."""

    profile: ScoringProfile | None = None
    coreset_ratio: float | None = None  # None: the whole bank
    reference_count: int | None = None  # None: all reference images

    def options(self, fixed: LoadOptions) -> LoadOptions:
        """All options of the load: those that every setting has, and these."""
        own = LoadOptions(profile=self.profile, coreset_ratio=self.coreset_ratio)
        return {**fixed, **own}

    def words(self) -> tuple[str, ...]:
        """The setting in a few words for people: one for each option."""
        images = "all references" if self.reference_count is None else counted(self.reference_count, "reference")
        return (
            "notebook" if self.profile is None else self.profile.value,
            "whole bank" if self.coreset_ratio is None else f"coreset {100 * self.coreset_ratio:.3g} %",
            images,
        )

    def __str__(self) -> str:
        return ", ".join(self.words())


@dataclass(frozen=True, slots=True)
class Axes:
    """The values that a sweep tries, each with each other. At least one on every axis."""

    profiles: Sequence[ScoringProfile | None] = (None,)
    coreset_ratios: Sequence[float | None] = (None,)
    reference_counts: Sequence[int | None] = (None,)

    def settings(self) -> Iterator[Setting]:
        """Every combination once. A profile without a bank has no coreset."""
        seen = set()
        for profile, ratio, count in itertools.product(self.profiles, self.coreset_ratios, self.reference_counts):
            setting = Setting(profile, None if profile in _WITHOUT_BANK else ratio, count)
            if setting not in seen:
                seen.add(setting)
                yield setting
