"""The engine and the server give the same results as the documented notebook pipeline with the same weights."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from e2e.harness import ServerProcess, Stub, connect, server_process
from fakes import documented_client
from fakes.engine import fit, inspect
from fakes.images import encoded
from golden.notebook_pipeline import NotebookPipeline
from numpy.typing import NDArray
from PIL import Image
from torchvision.models import wide_resnet50_2

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector

MAP_TOLERANCE = 1e-4
PERCENTAGE_TOLERANCE = 0.05
OVERLAY_MEAN_TOLERANCE = 0.2  # gray levels
OVERLAY_MAX_TOLERANCE = 8  # a heat level may be rounded up or down

_SHARED = Path(os.environ.get("PATCHSERVE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state dict of a wide_resnet50_2 as torchvision initializes it after torch.manual_seed(0)."""
    path = tmp_path_factory.mktemp("weights") / "wide_resnet50_2.pth"
    torch.manual_seed(0)
    torch.save(wide_resnet50_2().state_dict(), path)
    yield path
    path.unlink()  # 275 MB, which pytest would keep for three runs


@pytest.fixture(scope="module")
def notebook(weights: Path) -> NotebookPipeline:
    return NotebookPipeline(weights)


@pytest.fixture(scope="module")
def detector(weights: Path) -> PatchCoreDetector:
    return create_detector(backbone="wide_resnet50_2", weights=weights, device="cpu", threads=1)


def textured_image(seed: int, size_px: tuple[int, int], *, damaged: bool = False) -> Image.Image:
    """Grain on a coarse pattern of colors, size_px is (width, height). If damaged, with a dark checkered spot."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)).resize(size_px, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 12, (size_px[1], size_px[0], 1))
    pixels = np.asarray(coarse) + grain
    if damaged:
        top, left = size_px[1] // 3, size_px[0] // 2
        spot = pixels[top : top + size_px[1] // 5, left : left + size_px[0] // 6]
        spot[:] = 30 + 80 * ((np.indices(spot.shape[:2]).sum(axis=0) // 5) % 2)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def model_inputs(images: Sequence[Image.Image]) -> ModelInputs:
    scaled = [image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(each) for each in scaled])


def assert_parity(
    notebook: NotebookPipeline,
    detector: PatchCoreDetector,
    references: Sequence[Image.Image],
    image: Image.Image,
) -> None:
    expected_map, expected_percentage, _ = notebook.run(references, image)
    scorer = fit(detector, model_inputs(references))
    [result] = inspect(scorer, model_inputs([image]))
    raw = result.anomaly_map
    scaled = (raw - raw.min()) / (raw.max() - raw.min() + 1e-8)
    assert scorer.model.memory_bank.patches.shape == (784 * len(references), 1536)
    np.testing.assert_allclose(scaled, expected_map, rtol=0, atol=MAP_TOLERANCE)
    assert result.damage.damage_percentage == pytest.approx(expected_percentage, abs=PERCENTAGE_TOLERANCE)
    assert result.damage.anomaly_detected == (expected_percentage > 5.0)


def test_one_reference_image_gives_the_notebooks_results(
    notebook: NotebookPipeline, detector: PatchCoreDetector
) -> None:
    assert_parity(notebook, detector, [textured_image(1, (320, 240))], textured_image(2, (500, 333), damaged=True))


def test_several_reference_images_give_the_notebooks_results(
    notebook: NotebookPipeline, detector: PatchCoreDetector
) -> None:
    references = [textured_image(seed, (300 + 20 * seed, 260)) for seed in (3, 4, 5)]
    assert_parity(notebook, detector, references, textured_image(4, (300, 400), damaged=True))


def test_the_reference_image_itself_gives_the_notebooks_results(
    notebook: NotebookPipeline, detector: PatchCoreDetector
) -> None:
    reference = textured_image(6, (224, 224))
    assert_parity(notebook, detector, [reference], reference)


def parcel_folder() -> Path:
    folder = _SHARED / "parcel"
    if not folder.is_dir():
        pytest.skip("no parcel photographs (set PATCHSERVE_TEST_DATA)")
    return folder


def test_a_parcel_gives_the_notebooks_results(notebook: NotebookPipeline, detector: PatchCoreDetector) -> None:
    folder = parcel_folder()
    assert_parity(notebook, detector, [Image.open(folder / "good.jpg")], Image.open(folder / "damage.jpg"))


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[ServerProcess]:
    flags = ("--backbone", "wide_resnet50_2", "--weights", str(weights), "--default-timeout-s", "120")
    with server_process(*flags, "--http-port", "0") as server:
        yield server


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    with connect(server.address) as connected:
        yield connected


def assert_server_parity(notebook: NotebookPipeline, stub: Stub, references: Sequence[bytes], image: bytes) -> None:
    """Over a real socket, from encoded bytes to the overlay's PNG."""
    decoded = [Image.open(io.BytesIO(data)) for data in references]
    expected_map, expected_percentage, expected_overlay = notebook.run(decoded, Image.open(io.BytesIO(image)))
    loaded = stub.LoadReference(reference_pb2.LoadReferenceRequest(images=references)).reference
    assert (loaded.patch_count, loaded.feature_dim) == (784 * len(references), 1536)
    output = inference_pb2.OutputOptions(
        overlay=True, score_map=True, heatmap_scale=inference_pb2.HEATMAP_SCALE_RELATIVE
    )
    response = stub.Infer(inference_pb2.InferRequest(image=image, output=output))
    raw = np.frombuffer(response.score_map.values, "<f4").reshape(224, 224)
    scaled = (raw - raw.min()) / (raw.max() - raw.min() + 1e-8)
    np.testing.assert_allclose(scaled, expected_map, rtol=0, atol=MAP_TOLERANCE)
    assert response.damage.damage_percentage == pytest.approx(expected_percentage, abs=PERCENTAGE_TOLERANCE)
    assert_overlay(response.overlay_png, expected_overlay)


def assert_overlay(png: bytes, expected: NDArray[np.uint8]) -> None:
    overlay = np.asarray(Image.open(io.BytesIO(png)))
    assert overlay.shape == expected.shape
    difference = np.abs(overlay.astype(int) - expected)
    assert difference.mean() <= OVERLAY_MEAN_TOLERANCE
    assert difference.max() <= OVERLAY_MAX_TOLERANCE


def test_the_server_gives_the_notebooks_results(notebook: NotebookPipeline, stub: Stub) -> None:
    references = [encoded(textured_image(seed, (320, 240)), kind) for seed, kind in ((1, "PNG"), (7, "JPEG"))]
    image = encoded(textured_image(2, (500, 333), damaged=True))
    assert_server_parity(notebook, stub, references[:1], image)
    assert_server_parity(notebook, stub, references, image)


def test_the_server_gives_the_notebooks_results_for_a_parcel(notebook: NotebookPipeline, stub: Stub) -> None:
    folder = parcel_folder()
    good, damage = ((folder / name).read_bytes() for name in ("good.jpg", "damage.jpg"))
    assert_server_parity(notebook, stub, [good], damage)


def test_a_client_of_the_documented_http_service_gets_the_notebooks_results(
    notebook: NotebookPipeline, server: ServerProcess, tmp_path: Path
) -> None:
    reference, image, result = (tmp_path / name for name in ("good.png", "test.png", "result.png"))
    textured_image(1, (320, 240)).save(reference)
    textured_image(2, (500, 333), damaged=True).save(image)
    _, expected_percentage, expected_overlay = notebook.run([Image.open(reference)], Image.open(image))
    said = documented_client.inspect(server.http_url, reference, image, result)
    assert said["health"]["model"] == "PatchCore with WideResNet-50-2"
    assert (said["loaded"]["patches"], said["loaded"]["feature_dim"]) == (784, 1536)
    assert said["judged"]["damage_percentage"] == pytest.approx(expected_percentage, abs=PERCENTAGE_TOLERANCE)
    assert said["judged"]["anomaly_detected"] is (expected_percentage > 5.0)
    assert_overlay(result.read_bytes(), expected_overlay)
