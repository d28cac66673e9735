"""How much the anomaly maps of a fast precision may differ from those in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.runtime import Runtime

TOLERANCE: Final = 0.1  # docs/accuracy.md: the accepted difference of a map, as a share of its peak

MapDifference: TypeAlias = Callable[[BackboneSpec, Runtime, Runtime], float]
"""How far apart the anomaly maps of an exact and another runtime are, as a share of the exact map's peak."""
