"""The image files of a folder: which, in which order, under which names."""

from __future__ import annotations

import random
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client._image_files import MAX_FRAME_ID_BYTES, frame_id_of, image_files, images_in, natural_order


def test_numbers_in_names_are_ordered_by_their_value() -> None:
    ordered = ["frame 1.png", "frame 2.png", "frame 10.png", "frame 10b.png", "Frame 11.png", "frame 011.png"]
    ordered += ["v1.2/9.png", "v1.10/1.png", "x.png", "x 1.png"]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    in_order = [str(path) for path in sorted(map(PurePath, shuffled), key=natural_order)]
    assert in_order.index("frame 2.png") < in_order.index("frame 10.png") < in_order.index("Frame 11.png")
    assert in_order.index("v1.2/9.png") < in_order.index("v1.10/1.png")
    assert in_order == [str(path) for path in sorted(map(PurePath, ordered), key=natural_order)]


@given(st.lists(st.integers(0, 10**30), unique=True), st.text(st.characters(exclude_characters="/\0"), max_size=5))
def test_any_numbers_between_any_words_are_ordered_by_their_value(numbers: list[int], word: str) -> None:
    paths = [PurePath(f"{word}-{number}-{word}.png") for number in sorted(numbers)]
    shuffled = random.Random(0).sample(paths, len(paths))
    assert sorted(shuffled, key=natural_order) == paths


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1)))
def test_any_names_have_one_order(names: list[str]) -> None:
    paths = list(map(PurePath, names))
    shuffled = random.Random(0).sample(paths, len(paths))
    assert sorted(shuffled, key=natural_order) == sorted(paths, key=natural_order)


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_sub_folders_are_searched_and_hidden_ones_are_not(tmp_path: Path) -> None:
    touched(tmp_path, "10.png", "2.JPG", "day 10/1.webp", "day 2/deep/1.tiff", ".cache/1.png", ".1.png", "notes.txt")
    (tmp_path / "folder.png").mkdir()
    names = [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)]
    assert names == ["2.JPG", "10.png", "day 2/deep/1.tiff", "day 10/1.webp"]
    assert [path.name for path in image_files(tmp_path)] == ["2.JPG", "10.png"]


def test_links_are_files_of_their_own_and_a_loop_ends(tmp_path: Path) -> None:
    touched(tmp_path, "set/1.png")
    (tmp_path / "set/2.png").symlink_to("1.png")
    (tmp_path / "set/up").symlink_to("..")
    (tmp_path / "again").symlink_to("set")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    names = [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)]
    assert names == ["again/1.png", "again/2.png", "set/1.png", "set/2.png"]


def test_a_folder_without_images_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    touched(tmp_path, "sub/notes.txt")
    with pytest.raises(ValueError, match=r"There are no images in .* \(looked for \.bmp .*\.webp\)"):
        images_in(tmp_path)


@given(st.text(st.characters(), min_size=1))
def test_any_name_becomes_a_valid_frame_id(name: str) -> None:
    frame_id = frame_id_of(name)
    assert len(frame_id.encode()) <= MAX_FRAME_ID_BYTES
    if name.isascii() and len(name) <= MAX_FRAME_ID_BYTES:
        assert frame_id == name
