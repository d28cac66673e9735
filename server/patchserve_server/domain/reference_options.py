"""What a user decides when a reference is loaded."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.false_alarm_rate import check_false_alarm_rate
from patchserve_server.domain.input_options import DEFAULT_SIDE_PX, VERDICT_SIDE_PX, InputOptions
from patchserve_server.domain.white_level import check_white_level

MIN_CORESET_PATCHES = 16
MAX_REGION_POINTS = 500
MAX_SCALES = 3
_MIN_POLYGON_POINTS = 3


class ScoringProfile(enum.Enum):
    """How patch vectors are computed and distances become scores."""

    NOTEBOOK = "notebook"
    PAPER = "paper"
    VERDICT = "verdict"
    SUBSPACE = "subspace"

    @property
    def default_side_px(self) -> int:
        """The longer side of the model inputs if the caller asks for none."""
        is_published = self in (ScoringProfile.NOTEBOOK, ScoringProfile.PAPER)  # with a size of their own
        return DEFAULT_SIDE_PX if is_published else VERDICT_SIDE_PX

    @property
    def default_views(self) -> ReferenceViews:
        """The views if the caller asks for none."""
        return ReferenceViews.AUTO if self is ScoringProfile.VERDICT else ReferenceViews.NONE


class ReferenceViews(enum.Enum):
    """Whether mirrored and turned copies of the reference images are part of the bank."""

    NONE = "none"
    AUTO = "auto"  # with few images, if normal scores spread no more with them
    ALL = "all"


@dataclass(frozen=True, slots=True)
class CoresetOptions:
    """How many patches the coreset selects. At most one option is set; with neither, the bank keeps all patches.

    Raises:
        InvalidInputError: a value is out of its range, or both are set.
    """

    ratio: float | None = None  # above 0, at most 1
    max_patches: int | None = None  # MIN_CORESET_PATCHES or more

    def __post_init__(self) -> None:
        if self.ratio is not None and self.max_patches is not None:
            raise InvalidInputError("", "Set either ratio or max_patches of a coreset, not both.")
        if self.ratio is not None and not 0 < self.ratio <= 1:  # also excludes NaN
            raise InvalidInputError("ratio", f"The ratio of a coreset is above 0 and at most 1, not {self.ratio:g}.")
        if self.max_patches is not None and self.max_patches < MIN_CORESET_PATCHES:
            message = f"max_patches of a coreset is at least {MIN_CORESET_PATCHES}, not {self.max_patches}."
            raise InvalidInputError("max_patches", message)


RelativePoint: TypeAlias = tuple[float, float]
"""(x, y) as fractions of an image's width and height, 0 to 1 from its top left."""

RegionOfInterest: TypeAlias = tuple[tuple[RelativePoint, ...], ...]
"""Polygons, not closed. Pixels inside any of them count; without polygons, all pixels count."""


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """What the user decides when a reference is loaded.

    Raises:
        InvalidInputError: a value is out of its range, or two options exclude each other.
    """

    profile: ScoringProfile = ScoringProfile.NOTEBOOK
    coreset: CoresetOptions = field(default_factory=CoresetOptions)
    search_radius: float | None = None  # fraction of the image's side, above 0 to 1; None: search everywhere
    region_of_interest: RegionOfInterest = ()
    approximate_search: bool = False  # for large banks; not together with a search radius
    input: InputOptions = field(default_factory=InputOptions)
    views: ReferenceViews = ReferenceViews.NONE  # ALL not together with a search radius or tiles
    scales: int = 1  # 1 to MAX_SCALES: how many sizes of the items the bank has; above 1 as views
    false_alarm_rate: float | None = None  # share of the undamaged items; None: the default
    white_level: int | None = None  # of images that have none of their own; None: what the file says

    def __post_init__(self) -> None:
        check_false_alarm_rate(self.false_alarm_rate)
        check_white_level(self.white_level)
        if self.search_radius is not None and not 0 < self.search_radius <= 1:  # also excludes NaN
            message = (
                "search_radius is a fraction of the image's side, above 0 and at most 1; leave it out to search all."
            )
            raise InvalidInputError("search_radius", message)
        if self.approximate_search and self.search_radius is not None:
            message = "approximate_search cannot be combined with search_radius; leave one of them out."
            raise InvalidInputError("approximate_search", message)
        if self.profile is ScoringProfile.SUBSPACE:
            self._check_nothing_to_search()
        self._check_views()
        _check_region_of_interest(self.region_of_interest)

    def _check_views(self) -> None:
        if not 1 <= self.scales <= MAX_SCALES:
            raise InvalidInputError("scales", f"scales is 1 to {MAX_SCALES}, not {self.scales}.")
        for name, is_set in (("views", self.views is ReferenceViews.ALL), ("scales", self.scales > 1)):
            # Patches of a view lie elsewhere than in the image, and views of very large images take too much memory.
            if is_set and (self.search_radius is not None or self.input.tile_px is not None):
                other = "tile_px" if self.search_radius is None else "search_radius"
                raise InvalidInputError(name, f"{name} cannot be combined with {other}; leave one of them out.")

    def _check_nothing_to_search(self) -> None:
        for name, is_set in (
            ("coreset", self.coreset != CoresetOptions()),
            ("search_radius", self.search_radius is not None),
            ("approximate_search", self.approximate_search),
        ):
            if is_set:
                message = (
                    f"{name} cannot be combined with the profile SUBSPACE, which keeps no patches to search; leave "
                    "one of them out."
                )
                raise InvalidInputError(name, message)


def _check_region_of_interest(polygons: RegionOfInterest) -> None:
    points = [point for polygon in polygons for point in polygon]
    problem = ""
    if any(len(polygon) < _MIN_POLYGON_POINTS for polygon in polygons):
        problem = f"a polygon has at least {_MIN_POLYGON_POINTS} points."
    elif len(points) > MAX_REGION_POINTS:
        problem = f"all polygons together have at most {MAX_REGION_POINTS} points."
    elif not all(0 <= fraction <= 1 for point in points for fraction in point):  # also excludes NaN
        problem = "x and y are fractions of the image's width and height, 0 to 1."
    if problem:
        raise InvalidInputError("region_of_interest", f"region_of_interest: {problem}")


@dataclass(frozen=True, slots=True)
class RequestedOptions:
    """The options that a caller set for a load. None: not set.

    Raises:
        InvalidInputError: as ReferenceOptions.
    """

    profile: ScoringProfile | None = None
    coreset: CoresetOptions | None = None
    search_radius: float | None = None
    region_of_interest: RegionOfInterest | None = None
    approximate_search: bool | None = None
    input: InputOptions | None = None
    views: ReferenceViews | None = None
    scales: int | None = None
    false_alarm_rate: float | None = None
    white_level: int | None = None

    def __post_init__(self) -> None:
        self.with_defaults()

    def with_defaults(self) -> ReferenceOptions:
        """The options of a new reference. Options that are not set have their defaults."""
        profile = self.profile or ScoringProfile.NOTEBOOK
        return ReferenceOptions(**{"views": profile.default_views, **self._set_values()})

    def first_difference(self, options: ReferenceOptions) -> str | None:
        """The name of the first option that is set and differs from `options`."""
        return next((name for name, value in self._set_values().items() if getattr(options, name) != value), None)

    def _set_values(self) -> dict[str, Any]:
        values = ((option.name, getattr(self, option.name)) for option in fields(self))
        return {name: value for name, value in values if value is not None}
