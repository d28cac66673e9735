"""Settings: what a reference is loaded with, and its name in the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from patchserve_server.domain.input_options import AspectRatio, InputOptions
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ReferenceViews, ScoringProfile


@dataclass(frozen=True)
class Setting:
    """The options of a load."""

    name: str
    options: ReferenceOptions

    def with_radius(self, radius: float) -> Setting:
        """The same with a search radius, for scenes that are aligned."""
        return Setting(f"{self.name}, radius {radius:g}", replace(self.options, search_radius=radius))

    def with_views(self, views: ReferenceViews) -> Setting:
        return Setting(f"{self.name}, views {views.name}", replace(self.options, views=views))

    def with_coreset(self, ratio: float) -> Setting:
        return Setting(f"{self.name}, coreset {ratio:.0%}", replace(self.options, coreset=CoresetOptions(ratio)))


def setting(profile: str, side_px: int, *, tile_px: int | None = None, keep_aspect: bool = False) -> Setting:
    """A profile at a size. Images are squeezed into a square unless `keep_aspect`."""
    aspect = AspectRatio.KEEP if keep_aspect else AspectRatio.SQUEEZE
    inputs = InputOptions(longer_side_px=side_px, tile_px=tile_px, aspect=aspect)
    tiles = "" if tile_px is None else f", tiles of {tile_px} px"
    options = ReferenceOptions(profile=ScoringProfile[profile], input=inputs)
    return Setting(f"{profile} {side_px} px{tiles}", options)
