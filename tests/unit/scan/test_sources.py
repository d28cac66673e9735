"""Where images are: a folder, a bucket, a list."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from patchserve_server.domain.errors import ImageTooLargeError
from patchserve_server.imaging import ImageLimits
from patchserve_server.scan import sources
from patchserve_server.scan.buckets import Buckets
from patchserve_server.scan.errors import ScanError, UnreadableImageError
from patchserve_server.scan.reading import ImageReader
from patchserve_server.scan.sources import open_source
from patchserve_server.store.objects import open_object_storage

NOWHERE = "/nowhere"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def listed(text: object, results: object = NOWHERE) -> list[str]:
    source = open_source(str(text), str(results))
    return [path.removeprefix(f"{source.name}/") for path in source.list()]


def test_a_folder_has_its_images_and_those_of_its_subfolders_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b/2.PNG", "b/1.jpeg", "a.tif", "c.webp", "d/e/f.bmp", "notes.txt", ".hidden.jpg", ".git/a.jpg")
    assert listed(tmp_path) == ["a.tif", "b/1.jpeg", "b/2.PNG", "c.webp", "d/e/f.bmp"]


def test_names_are_sorted_in_pieces_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SORTED_AT_ONCE", 3)
    write(tmp_path, *(f"{number:02}.png" for number in range(10)))
    assert sorted(listed(tmp_path)) == [f"{number:02}.png" for number in range(10)]


def test_links_are_followed_unless_they_point_up(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/1.png", "source/2.png")
    for name, target in {"up": "..", "link": "../elsewhere", "3.png": "../elsewhere/1.png", "4.png": "gone"}.items():
        (tmp_path / "source" / name).symlink_to(target)
    assert listed(tmp_path / "source") == ["2.png", "3.png", "link/1.png", "up/elsewhere/1.png"]


def test_results_in_the_source_are_no_images(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "results/overlays/part-000000/0000-1.jpg")
    assert listed(tmp_path, tmp_path / "results") == ["1.png"]


def test_a_list_names_images_by_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"a.png\r\n\n/b/c.png\ns3://bucket/d e.jpg\nno suffix\nf\xff.png")
    here = str(tmp_path)
    assert list(open_source("list.txt", NOWHERE).list()) == [
        f"{here}/a.png",
        "/b/c.png",
        "s3://bucket/d e.jpg",
        f"{here}/no suffix",
        f"{here}/f\udcff.png",
    ]


def test_a_bucket_has_the_images_below_a_prefix(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name.replace('_', '-')}"
    bucket = open_object_storage(url)
    for key in ("lines/1 a.png", "lines/é/2.JPG", "lines/notes.txt", "lines/out/overlays/0.jpg", "lines2/3.png"):
        bucket.put(key, b"image")
    assert list(open_source(f"{url}/lines/", f"{url}/lines/out/").list()) == [
        f"{url}/lines/1 a.png",
        f"{url}/lines/é/2.JPG",
    ]
    assert len(list(open_source(url, NOWHERE).list())) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "There is no folder .*missing, and no file"), ("one.png", "is one image: `patchserve infer`")],
)
def test_what_is_no_source_is_refused(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, "one.png")
    with pytest.raises(ScanError, match=message):
        open_source(str(tmp_path / name), NOWHERE)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the user may read everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(ScanError, match=r"closed cannot be listed: Permission denied"):
        listed(tmp_path)


def test_images_are_read_with_their_digest_within_the_limits(tmp_path: Path) -> None:
    write(tmp_path, "1.png")
    url = f"memory://{tmp_path.name.replace('_', '-')}"
    open_object_storage(url).put("a/1 2.png", b"1.png")
    with Buckets() as buckets:
        reader, small = (ImageReader(ImageLimits(max_bytes=limit), buckets) for limit in (5, 4))
        for path in (str(tmp_path / "1.png"), f"{url}/a/1 2.png"):
            assert reader.read(path).data == b"1.png"
            assert reader.read(path).sha256 == hashlib.sha256(b"1.png").hexdigest()
            with pytest.raises(ImageTooLargeError, match="has 5 bytes; at most 4"):
                small.read(path)
        for path in (str(tmp_path / "2.png"), str(tmp_path), f"{url}/a/2.png"):
            with pytest.raises(UnreadableImageError, match="cannot be read"):
                reader.read(path)
