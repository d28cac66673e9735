"""Everything that the faces of the server call: put together by bootstrap, known to rpc."""

from __future__ import annotations

from dataclasses import dataclass

from patchserve_server.domain.inspection import HeatmapScale, Inspection, OutputOptions
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.serving.admission import Admission
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.loading import Loader
from patchserve_server.serving.sessions import Sessions


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Every bound that the server keeps, as GetServerInfo tells them."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side_px: int
    max_message_bytes: int
    max_reference_images: int
    max_pending_images: int
    max_in_flight: int
    default_in_flight: int
    default_timeout_s: float
    load_timeout_s: float
    max_bank_bytes: int


@dataclass(frozen=True, slots=True)
class Application:
    """A warm server without a socket."""

    detector: DetectorInfo
    limits: ServerLimits
    heatmap_scale: HeatmapScale
    catalog: Catalog
    loader: Loader
    inspector: Inspector
    sessions: Sessions
    admission: Admission  # of single pictures

    async def infer(
        self, reference_id: str, expected_revision: str, image: bytes, options: OutputOptions
    ) -> Inspection:
        """Inspects one picture, or refuses at once where too many are under way.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError, QueueFullError, and what Inspector.inspect raises.
        """
        reference = self.catalog.get(reference_id, expected_revision)
        async with self.admission.refuse_when_full():
            return await self.inspector.inspect(reference, image, options)
