"""The metrics of an evaluation against known answers and naive ones; data sets in every state of disrepair."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from patchserve_client.evaluation import DatasetError, chosen_references, read_dataset
from patchserve_client.evaluation.image_metrics import ImageMetrics, auroc, image_metrics
from patchserve_client.evaluation.pixel_metrics import PixelTally, stretched

TRUTH = np.array([False, False, False, False, True, True, True, True])
RISING = np.arange(8) / 8  # 0.5 is the first defect's


def measured(scores: NDArray[np.float64], threshold: float = 0.5, truth: NDArray[np.bool_] = TRUTH) -> ImageMetrics:
    return image_metrics(truth, scores, scores >= threshold, 100 * scores[::-1])


def test_perfect_scores_measure_one() -> None:
    assert measured(RISING) == ImageMetrics(
        image_auroc=1.0,
        average_precision=1.0,
        f1=1.0,
        balanced_accuracy=1.0,
        best_balanced_accuracy=1.0,
        best_threshold=0.5,
        false_alarm_rate=0.0,
        damage_percentage_auroc=0.0,
    )


def test_inverted_scores_measure_zero_and_no_threshold_is_better_than_none() -> None:
    found = measured(RISING[::-1], threshold=0.45)
    assert (found.image_auroc, found.f1, found.balanced_accuracy, found.false_alarm_rate) == (0, 0, 0, 1)
    assert (found.best_balanced_accuracy, found.best_threshold) == (0.5, None)
    assert found.damage_percentage_auroc == 1


def test_scores_all_alike_rank_as_chance() -> None:
    found = measured(np.full(8, 0.3))
    assert (found.image_auroc, found.average_precision, found.best_balanced_accuracy) == (0.5, 0.5, 0.5)
    assert (found.f1, found.balanced_accuracy, found.false_alarm_rate) == (0, 0.5, 0)


def test_a_bad_threshold_is_told_from_a_bad_ranking() -> None:
    found = measured(RISING, threshold=0.3)  # flags one intact image of four
    assert found.image_auroc == 1
    assert found.false_alarm_rate == 0.25
    assert found.f1 == pytest.approx(8 / 9)
    assert found.balanced_accuracy == pytest.approx(0.875)
    assert (found.best_balanced_accuracy, found.best_threshold) == (1, 0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
def test_image_auroc_counts_pairs_and_ties_by_half(images: list[tuple[bool, int]]) -> None:
    truth = np.array([defective for defective, _ in images])
    scores = np.array([score / 8 for _, score in images])
    wins = [np.sign(bad - good) / 2 + 0.5 for bad in scores[truth] for good in scores[~truth]]
    found = measured(scores, truth=truth).image_auroc
    assert found == (pytest.approx(np.mean(wins)) if wins else None)
    assert auroc(scores[~truth], scores[truth]) == found


@pytest.mark.parametrize(("defective", "false_alarm_rate"), [(False, 0.5), (True, None)])
def test_what_needs_both_kinds_of_images_is_left_undefined(defective: bool, false_alarm_rate: float | None) -> None:
    found = measured(RISING, truth=np.full(8, defective))
    assert found == ImageMetrics(false_alarm_rate=false_alarm_rate)


def tally(*images: tuple[NDArray[np.float32], NDArray[np.bool_]]) -> PixelTally:
    counted = PixelTally()
    for score_map, mask in images:
        counted.add(score_map, mask)
    return counted


def naive_regions(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Connected through sides and corners."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        regions.append(region)
    return regions


def naive_aupro(images: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]], limit: float = 0.3) -> float:
    """By the definition: over all thresholds, the mean overlap of regions against the false positive rate."""
    images = list(images)
    regions = [(scores, region) for scores, mask in images for region in naive_regions(mask)]
    intact = np.concatenate([scores[~mask] for scores, mask in images])
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(score) for scores, _ in images for score in scores.ravel()}, reverse=True):
        overlaps = [sum(scores[pixel] >= threshold for pixel in region) / len(region) for scores, region in regions]
        curve.append((float((intact >= threshold).mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@st.composite
def marked_maps(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    eighths = draw(arrays(np.uint8, shape, elements=st.integers(0, 20)))
    return eighths.astype(np.float32) / np.float32(8), draw(arrays(np.bool_, shape))


@settings(deadline=None, max_examples=60)
@given(st.lists(marked_maps(), min_size=1, max_size=3))
def test_pixel_metrics_equal_naive_ones(images: list[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> None:
    counted = tally(*images)
    truth = np.concatenate([mask.ravel() for _, mask in images])
    scores = np.concatenate([score_map.ravel() for score_map, _ in images])
    assert counted.region_count == sum(len(naive_regions(mask)) for _, mask in images)
    if truth.all() or not truth.any():
        assert counted.auroc() is None
        assert counted.aupro() is None
        return
    assert counted.auroc() == pytest.approx(roc_auc_score(truth, scores))
    assert counted.aupro() == pytest.approx(naive_aupro(images))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_fine_scores_lose_next_to_nothing(scale: float) -> None:
    rng = np.random.default_rng(1)
    mask = cv2.GaussianBlur(rng.normal(size=(64, 64)).astype(np.float32), (0, 0), 6) > 0.1
    scores = (scale * rng.gamma(3 + mask)).astype(np.float32)
    counted = tally((scores, mask))
    assert counted.auroc() == pytest.approx(roc_auc_score(mask.ravel(), scores.ravel()), abs=1e-4)
    assert counted.aupro() == pytest.approx(naive_aupro([(scores, mask)]), abs=1e-4)


def test_pixel_metrics_of_known_maps() -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[:10, :10] = mask[15, 15] = True  # a large region and a single pixel
    marked = mask.astype(np.float32)
    perfect, inverted, flat = tally((marked, mask)), tally((1 - marked, mask)), tally((0 * marked, mask))
    assert (perfect.auroc(), perfect.aupro()) == (1, 1)
    assert (inverted.auroc(), inverted.aupro()) == (0, 0)
    assert flat.auroc() == 0.5
    assert flat.aupro() == pytest.approx(0.15)  # the diagonal up to 0.3


def test_every_region_counts_the_same_whatever_its_size() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[:10, :10] = mask[30, 30] = True
    only_large_found = np.zeros((40, 40), np.float32)
    only_large_found[:10, :10] = 1
    overlap_at_the_limit = 0.5 + 0.5 * 0.3  # on the straight line from (0, 0.5) to (1, 1)
    found = tally((only_large_found, mask)).aupro()
    assert found == pytest.approx((0.5 + overlap_at_the_limit) / 2)


def test_maps_are_stretched_over_the_mask_as_opencv_does() -> None:
    score_map = np.random.default_rng(2).random((28, 28), np.float32)
    np.testing.assert_allclose(
        stretched(score_map, (100, 71)), cv2.resize(score_map, (71, 100), interpolation=cv2.INTER_LINEAR), atol=2e-3
    )
    mask = np.repeat([[False, True]], 30, axis=0).repeat(40, axis=1)  # (30, 80)
    assert tally((np.array([[0, 1]], np.float32), mask)).auroc() == 1


def test_intact_images_count_as_pixels_that_must_not_score() -> None:
    mask = np.array([[True, False]])
    damaged = (np.array([[2, 1]], np.float32), mask)
    hot_but_intact = (np.array([[3, 3]], np.float32), np.zeros_like(mask))
    assert tally(damaged).auroc() == 1
    assert tally(damaged, hot_but_intact).auroc() == pytest.approx(1 / 3)


@pytest.mark.parametrize("score", [-1, np.nan, np.inf])
def test_scores_that_are_none_are_refused(score: float) -> None:
    with pytest.raises(ValueError, match="finite numbers of 0 or more"):
        tally((np.array([[1, score]], np.float32), np.array([[True, False]])))


Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws a gray image into the data set."""

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


def test_a_whole_data_set(root: Path) -> None:
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


def test_ground_truth_is_optional_and_intact_images_have_none(draw: Draw, root: Path) -> None:
    (root / "ground_truth/crack/b_mask.png").unlink()
    draw("ground_truth/good/a_mask.png")
    found = read_dataset(root)
    assert [image.mask_path for image in found.images] == [None, None]
    assert found.notes == (
        "1 of 1 images in test/crack have no mask that marks damage: they count for the image metrics only.",
    )


def test_masks_that_mark_nothing_or_fit_nothing_are_told(draw: Draw, root: Path) -> None:
    draw("test/crack/c.png")
    draw("ground_truth/crack/c_mask.png", value=3)  # black, but for what compression left
    draw("ground_truth/crack/d_mask.png")
    found = read_dataset(root)
    assert [image.mask_path is None for image in found.images] == [False, True, True]
    assert found.notes == (
        "1 of 2 images in test/crack have no mask that marks damage: they count for the image metrics only.",
        "1 of the masks in ground_truth/crack fit no image, such as d_mask.png.",
    )


def test_a_turned_image_is_as_large_as_it_looks(draw: Draw, root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    draw("test/crack/b.jpg", (6, 8), exif=exif)  # stored upright 6 x 8, shown 8 x 6 as its mask is
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
    ("spoil", "complaint"),
    [
        (without("train"), r"has no folder train/good\. The layout is train/good, test/good"),
        (without("test"), r"has no folder test\. The layout is"),
        (emptied("train/good"), r"train/good has no images \(looked for .bmp"),
        (emptied("test"), "test has no folders with images"),
        (filled("test/good/a.png", b"no image"), r"a\.png is no image"),
        (filled("test/good/a.png", b""), r"a\.png is no image"),
        (filled("ground_truth/crack/b_mask.png", b"no mask"), r"b_mask\.png cannot be read as a mask"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused(root: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    spoil(root)
    with pytest.raises(DatasetError, match=complaint):
        read_dataset(root)


def test_a_mask_cut_short_is_refused(root: Path) -> None:
    mask = root / "ground_truth/crack/b_mask.png"
    whole = mask.read_bytes()
    mask.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"b_mask\.png cannot be read as a mask"):
        read_dataset(root)


def test_a_mask_of_another_size_is_refused(draw: Draw, root: Path) -> None:
    draw("ground_truth/crack/b_mask.png", (6, 8))
    with pytest.raises(DatasetError, match=r"b_mask\.png has 6 x 8 pixels, its image 8 x 6: they must be alike"):
        read_dataset(root)


def test_no_intact_test_images_is_a_data_set_still(root: Path) -> None:
    emptied("test/good")(root)
    found = read_dataset(root)
    assert [image.defect for image in found.images] == ["crack"]
    assert found.notes == ("test/good has no images.",)


def test_references_are_the_first_ones_or_drawn_by_a_seed(draw: Draw, root: Path) -> None:
    for number in range(3, 10):
        draw(f"train/good/{number}.png")
    found = read_dataset(root)
    assert chosen_references(found, None, None) == found.references
    assert chosen_references(found, 4, None) == found.references[:4]
    drawn = chosen_references(found, 4, seed=7)
    assert drawn == chosen_references(found, 4, seed=7)
    assert len(set(drawn)) == 4
    assert len({chosen_references(found, 4, seed) for seed in range(5)}) > 1
    with pytest.raises(DatasetError, match=r"There are 10 images in .*good, not 11"):
        chosen_references(found, 11, None)
