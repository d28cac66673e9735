"""One image in, one inspection out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import Inspection, OutputOptions
from patchserve_server.serving.engine_ports import ReferenceInUse
from patchserve_server.serving.fairness import FlowKey

T = TypeVar("T")


class Inspector(Protocol):
    """Inspects images, in this process or elsewhere."""

    async def inspect(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey, *, name: str = ""
    ) -> Inspection:
        """Compares one image with a reference, as soon as it is the flow's turn. The name is the caller's.

        Raises:
            InvalidImageError: it is not a supported image.
        """

    async def answer(
        self,
        reference: ReferenceInUse,
        image: SentImage,
        options: OutputOptions,
        flow: FlowKey,
        *,
        answer: Callable[[Inspection], T],
        name: str = "",
    ) -> T:
        """The same; returns what `answer` makes of the inspection, on the thread that made it.

        Raises:
            The errors of `inspect`, and those of `answer`: the inspection has failed then.
        """

    async def inspect_again(
        self, reference: ReferenceInUse, image: SentImage, options: OutputOptions, flow: FlowKey
    ) -> Inspection:
        """The same as `inspect` for an image that was inspected before: it is neither saved nor told.

        Raises:
            The errors of `inspect`.
        """

    async def draw(self, work: Callable[[], T], flow: FlowKey) -> T:
        """Does other work on an image, which blocks, as soon as it is the flow's turn."""
