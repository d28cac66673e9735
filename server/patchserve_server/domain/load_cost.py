"""What a loaded reference costs."""

from __future__ import annotations

from dataclasses import dataclass

from patchserve_server.domain.reference import ReferenceInfo


@dataclass(frozen=True, slots=True)
class LoadCost:
    """What each image that is compared with a reference costs, and what the reference itself does."""

    patches_per_image: int
    memory_bytes: int  # while it is open: bank, search index and, in int8, its network
    ms_per_image: float  # of one reference image that was scored alone, without decoding and drawing
    search_recall: float  # the share of the nearest rows that a search finds; 1 if it is exact


@dataclass(frozen=True, slots=True)
class LoadedReference:
    """A revision that was just loaded, and is now in use."""

    info: ReferenceInfo
    cost: LoadCost
