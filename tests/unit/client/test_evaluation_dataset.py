"""Datasets in the layout of MVTec AD: complete, incomplete and damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from patchserve_client.evaluation import DatasetError, chosen_references, read_dataset

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws a gray image in the dataset."""

    def drawn(name: str, size_px: tuple[int, int] = (8, 6), value: int = 255, **save: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size_px, value).save(path, **save)  # type: ignore[arg-type]
        return path

    return drawn


@pytest.fixture
def root(draw: Draw, tmp_path: Path) -> Path:
    for number in range(3):
        draw(f"train/good/{number}.png")
    draw("test/good/a.png")
    draw("test/crack/b.jpg")
    draw("ground_truth/crack/b_mask.png")
    return tmp_path


def test_a_dataset_is_read(root: Path) -> None:
    (root / "test/good/notes.txt").touch()
    (root / "test/good/.hidden.png").touch()
    (root / "test/good/folder.png").mkdir()
    (root / "test/.cache").mkdir()
    (root / "license.txt").touch()
    found = read_dataset(root)
    assert [path.name for path in found.references] == ["0.png", "1.png", "2.png"]
    cracked, intact = found.images
    assert (cracked.name, cracked.defect, cracked.size_px) == ("test/crack/b.jpg", "crack", (8, 6))
    assert cracked.mask_path == root / "ground_truth/crack/b_mask.png"
    assert (intact.name, intact.defect, intact.mask_path) == ("test/good/a.png", None, None)
    assert found.notes == ()


def test_masks_are_optional_and_intact_images_have_none(draw: Draw, root: Path) -> None:
    (root / "ground_truth/crack/b_mask.png").unlink()
    draw("ground_truth/good/a_mask.png")
    found = read_dataset(root)
    assert [image.mask_path for image in found.images] == [None, None]
    assert found.notes == ("1 of 1 image in test/crack without a mask of the damage: for the image metrics only.",)


def test_masks_without_damage_or_without_an_image_are_reported(draw: Draw, root: Path) -> None:
    draw("test/crack/c.png")
    draw("ground_truth/crack/c_mask.png", value=3)  # black, apart from compression
    draw("ground_truth/crack/d_mask.png")
    found = read_dataset(root)
    assert [image.mask_path is None for image in found.images] == [False, True, True]
    assert found.notes == (
        "1 of 2 images in test/crack without a mask of the damage: for the image metrics only.",
        "1 mask without an image in ground_truth/crack, for example d_mask.png.",
    )


def test_a_rotated_image_has_the_size_that_is_shown(draw: Draw, root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    draw("test/crack/b.jpg", (6, 8), exif=exif)  # stored 6 x 8, shown 8 x 6 like its mask
    assert read_dataset(root).images[0].size_px == (8, 6)


def without(name: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for path in sorted((root / name).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (root / name).rmdir() if (root / name).is_dir() else (root / name).unlink()

    return remove


def emptied(name: str) -> Callable[[Path], None]:
    def empty(root: Path) -> None:
        without(name)(root)
        (root / name).mkdir()

    return empty


def filled(name: str, content: bytes) -> Callable[[Path], None]:
    def fill(root: Path) -> None:
        (root / name).write_bytes(content)

    return fill


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (without("train"), r"has no folder train/good\. The layout is train/good, test/good"),
        (without("test"), r"has no folder test\. The layout is"),
        (emptied("train/good"), r"train/good has no images \(looked for .bmp"),
        (emptied("test"), "test has no folders with images"),
        (filled("test/good/a.png", b"no image"), r"a\.png is not an image"),
        (filled("test/good/a.png", b""), r"a\.png is not an image"),
        (filled("ground_truth/crack/b_mask.png", b"no mask"), r"b_mask\.png cannot be read as a mask"),
    ],
)
def test_a_folder_that_is_not_a_dataset_is_rejected(root: Path, damage: Callable[[Path], None], complaint: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=complaint):
        read_dataset(root)


def test_a_truncated_mask_is_rejected(root: Path) -> None:
    mask = root / "ground_truth/crack/b_mask.png"
    whole = mask.read_bytes()
    mask.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"b_mask\.png cannot be read as a mask"):
        read_dataset(root)


def test_a_mask_of_another_size_is_rejected(draw: Draw, root: Path) -> None:
    draw("ground_truth/crack/b_mask.png", (6, 8))
    with pytest.raises(DatasetError, match=r"b_mask\.png has 6 x 8 pixels, its image 8 x 6\. The sizes must be equal"):
        read_dataset(root)


def test_a_dataset_without_intact_test_images_is_accepted(root: Path) -> None:
    emptied("test/good")(root)
    found = read_dataset(root)
    assert [image.defect for image in found.images] == ["crack"]
    assert found.notes == ("test/good has no images.",)


def test_references_are_the_first_images_or_drawn_with_a_seed(draw: Draw, root: Path) -> None:
    for number in range(3, 10):
        draw(f"train/good/{number}.png")
    found = read_dataset(root)
    assert chosen_references(found, None, None) == found.references
    assert chosen_references(found, 4, None) == found.references[:4]
    drawn = chosen_references(found, 4, seed=7)
    assert drawn == chosen_references(found, 4, seed=7)
    assert len(set(drawn)) == 4
    assert len({chosen_references(found, 4, seed) for seed in range(5)}) > 1
    with pytest.raises(DatasetError, match=r"good has 10 images, not 11"):
        chosen_references(found, 11, None)
