"""Preload: a folder of images is loaded as the reference "default", or the server does not start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.detector import FakeDetector
from fakes.gray import gray_png

from patchserve_server.domain.errors import ReferenceNotFoundError, StartupError
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.imaging import ImageLimits
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.preload import FolderReader, preload
from patchserve_server.serving.reference_builder import ReferenceBuilder
from patchserve_server.store import MemoryReferenceStore


class FakeFolder:
    """Files by name. If the content of a file is an error, reading the file raises it."""

    def __init__(self, **files: bytes | OSError) -> None:
        self.files = files
        self.listing_error: OSError | None = None

    def __str__(self) -> str:
        return "FOLDER"

    def names(self) -> Sequence[str]:
        if self.listing_error is not None:
            raise self.listing_error
        return list(self.files)

    def read(self, name: str) -> bytes:
        file = self.files[name]
        if isinstance(file, OSError):
            raise file
        return file


class Bench:
    """A reference builder over fakes."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        detector = FakeDetector()
        self.catalog = Catalog(MemoryReferenceStore(), detector, storage=pool, opening=pool, max_bytes=2**20)
        self.builder = ReferenceBuilder(
            detector, self.catalog, images=pool, fitting=pool, limits=ImageLimits(), max_images=3, max_bytes=2**20
        )

    async def failure(self, folder: FakeFolder) -> str:
        """The message of a preload that fails; nothing is served after it."""
        with pytest.raises(StartupError) as caught:
            await preload(self.builder, folder)
        with pytest.raises(ReferenceNotFoundError):
            await self.catalog.info(DEFAULT_REFERENCE_ID)
        return caught.value.message


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(2) as pool:
        yield Bench(pool)


async def test_all_images_become_the_default_reference_in_the_order_of_the_folder(bench: Bench) -> None:
    reference = await preload(bench.builder, FakeFolder(b=gray_png(20), a=gray_png(10)))
    async with bench.catalog.use(DEFAULT_REFERENCE_ID) as open_reference:
        assert open_reference.info == reference
        assert open_reference.scorer.model.bank.inputs[:, 0, 0, 0].tolist() == [20, 10]


async def test_a_damaged_image_is_reported_by_its_file_name(bench: Bench) -> None:
    message = await bench.failure(FakeFolder(good=gray_png(10), bad=b"no image", unread=gray_png(10)))
    assert message.startswith("--preload FOLDER: bad: The bytes are not a ")


async def test_an_unreadable_file_is_reported_by_its_name(bench: Bench) -> None:
    message = await bench.failure(FakeFolder(good=gray_png(10), secret=PermissionError(13, "Permission denied")))
    assert message == "--preload FOLDER: secret: Permission denied. Name a folder of readable images."


async def test_a_missing_folder_is_reported(bench: Bench) -> None:
    folder = FakeFolder()
    folder.listing_error = FileNotFoundError(2, "No such file or directory")
    message = await bench.failure(folder)
    assert message == "--preload FOLDER: No such file or directory. Name a folder of readable images."


@pytest.mark.parametrize(("count", "expected"), [(0, "at least one image"), (4, "at most 3 images")])
async def test_too_few_or_too_many_images_are_reported(bench: Bench, count: int, expected: str) -> None:
    message = await bench.failure(FakeFolder(**{f"{number}": gray_png(10) for number in range(count)}))
    assert message.startswith("--preload FOLDER: ")
    assert expected in message


def test_a_folder_on_disk_has_its_visible_files_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", ".hidden"):
        (tmp_path / name).write_text(name)
    (tmp_path / "subfolder").mkdir()
    folder = FolderReader(tmp_path)
    assert str(folder) == str(tmp_path)
    assert {name: folder.read(name) for name in folder.names()} == {"a.jpg": b"a.jpg", "b.png": b"b.png"}
    assert list(folder.names()) == ["a.jpg", "b.png"]
