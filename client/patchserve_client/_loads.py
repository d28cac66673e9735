"""A load as a message, or as a stream of messages. No I/O to the server; functions that take images block."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

from patchserve.v1 import reference_pb2
from patchserve_client import _requests, _results
from patchserve_client._calls import Call
from patchserve_client._image_files import images_in
from patchserve_client._images import encoded
from patchserve_client._options import LoadOptions
from patchserve_client._types import ImageSource, ReferenceInfo

# Images up to this size are held in memory, so that they can be sent again. More are streamed while they are read.
HELD_BYTES: Final = 16 * 1024 * 1024

_NamedImage = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class StreamedLoad:
    """A load for LoadReferenceStream."""

    request: reference_pb2.LoadReferenceRequest  # without its images
    first: Iterable[_NamedImage]  # those that are held
    others: Iterator[_NamedImage]  # read when they are sent; nothing if all are held
    again: Iterable[_NamedImage] | None  # all of them, to be read once more; None: they can be read only once

    @property
    def is_repeatable(self) -> bool:
        """Whether the images can be sent once more."""
        return self.again is not None

    def messages(
        self, expected_revision: str = "", *, again: bool = False
    ) -> Iterator[reference_pb2.LoadReferenceStreamRequest]:
        """The messages of a call. Each image is read only when gRPC asks for its message.

        Args:
            expected_revision: instead of that of the request.
            again: the images have been sent before.
        """
        start = reference_pb2.LoadReferenceRequest()
        start.CopyFrom(self.request)
        start.expected_revision = expected_revision
        yield reference_pb2.LoadReferenceStreamRequest(start=start)
        images: Iterable[_NamedImage] = chain(self.first, self.others)
        if again and self.again is not None:
            images = self.again
        for image, name in images:
            yield reference_pb2.LoadReferenceStreamRequest(image=image, image_name=name)

    def convert(self, response: Any) -> ReferenceInfo:  # noqa: ANN401 - as `Call.convert`
        return _loaded(response)


@dataclass(frozen=True, slots=True)
class _Images:
    """Reads and encodes images, each time that it is iterated."""

    sources: ImageSource | Iterable[ImageSource]
    bgr: bool

    def __iter__(self) -> Iterator[_NamedImage]:
        for source in _sources(self.sources):
            yield encoded(source, bgr=self.bgr), _requests.image_name(source)

    @property
    def is_repeatable(self) -> bool:
        """An iterator ends once. Other iterables, such as a camera, can have other images the next time."""
        return _is_single(self.sources) or isinstance(self.sources, Collection)


def load(
    images: ImageSource | Iterable[ImageSource], reference_id: str, options: LoadOptions
) -> Call[ReferenceInfo] | StreamedLoad:
    """A unary call if the load is small and safe to repeat, otherwise a stream. Reads about HELD_BYTES at most."""
    request = _requests.load_request(reference_id, options)
    readable = _Images(images, options.get("bgr", False))
    unread = iter(readable)
    first, all_are_held = _held(unread)
    is_append = request.mode == reference_pb2.LOAD_MODE_APPEND
    if all_are_held and (not is_append or request.expected_revision):  # safe to repeat
        request.images.extend(image for image, _ in first)
        if any(name for _, name in first):
            request.image_names.extend(name for _, name in first)
        return Call("LoadReference", request, _loaded)
    if all_are_held:
        return StreamedLoad(request, first, unread, first)
    if readable.is_repeatable:
        return StreamedLoad(request, first, unread, readable)
    return StreamedLoad(request, first, unread, None)


def _held(images: Iterator[_NamedImage]) -> tuple[list[_NamedImage], bool]:
    """The first images, and whether these are all."""
    held: list[_NamedImage] = []
    size_bytes = 0
    for image, name in images:
        held.append((image, name))
        size_bytes += len(image)
        if size_bytes > HELD_BYTES:
            return held, False
    return held, True


def _loaded(response: Any) -> ReferenceInfo:  # noqa: ANN401 - both loads have such a response
    cost = response.cost if response.HasField("cost") else None  # an older server sends none
    return _results.reference_info(response.reference, cost=cost)


def _sources(images: ImageSource | Iterable[ImageSource]) -> Iterator[ImageSource]:
    """A single image becomes one item, and a folder the images in it."""
    for image in cast(Iterable[ImageSource], [images] if _is_single(images) else images):
        if isinstance(image, (str, os.PathLike)) and Path(image).is_dir():
            yield from images_in(Path(image))
        else:
            yield image


def _is_single(images: ImageSource | Iterable[ImageSource]) -> bool:
    # Types are checked because paths, bytes and arrays are iterable too.
    is_path_or_bytes = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike))
    return is_path_or_bytes or hasattr(type(images), "__array_interface__")  # Pillow images and NumPy arrays
