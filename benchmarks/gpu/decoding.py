"""How pixels and scores change when a device decodes: python -m gpu.decoding FOLDER... [--device cuda].

A folder has JPEGs in `train/good`, of which the reference is made, always from the pixels of the CPU, and in
`test/KIND`; those in `test/good` are undamaged. Both decoders make model inputs of the same files, which one detector
scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from gpu.decoders import LIMITS, Cpu, Decoder, OnDevice, StandIn
from patchserve_server import imaging
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Detector, Scorer
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.devices import resolve_device
from patchserve_server.engine.factory import create_detector

ENDINGS = (".jpg", ".jpeg")
HEAD = (
    "| images | input | levels, mean / max | scores, median / max | maps, max "
    "| verdicts that change | AUROC, CPU / other |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True, slots=True)
class Images:
    """The JPEGs of a folder."""

    name: str
    reference: Sequence[bytes]
    test: Sequence[bytes]
    is_damaged: NDArray[np.bool_]  # of each test image

    @classmethod
    def of(cls, folder: Path) -> Images:
        """The images of a folder.

        Raises:
            FileNotFoundError: there are none for the reference, or none to test.
        """
        reference, test = _jpegs(folder / "train" / "good"), _jpegs(folder / "test")
        if not reference or not test:
            raise FileNotFoundError(f"{folder} needs JPEGs in train/good and in test/KIND.")
        is_damaged = np.array([path.relative_to(folder / "test").parts[0] != "good" for path in test])
        return cls(
            folder.name, [each.read_bytes() for each in reference], [each.read_bytes() for each in test], is_damaged
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """What one decoder gives."""

    inputs: NDArray[np.uint8]  # (N, H, W, 3)
    scores: NDArray[np.float64]  # (N,)
    maps: Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Differences:
    """Between the decoder of the CPU and another one, on the same files and the same reference."""

    images: Images
    shape: InputShape
    threshold: float
    cpu: Scored
    other: Scored

    @property
    def levels(self) -> NDArray[np.uint8]:
        """Of each value of each model input, 0 to 255: (N, H, W, 3)."""
        return np.maximum(self.cpu.inputs, self.other.inputs) - np.minimum(self.cpu.inputs, self.other.inputs)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Of each image, as a share of its score."""
        return np.abs(self.other.scores - self.cpu.scores) / self.cpu.scores

    @property
    def maps(self) -> float:
        """The largest of any value of an anomaly map, as a share of the peak of the map."""
        pairs = zip(self.cpu.maps, self.other.maps, strict=True)
        return max(float(np.nanmax(np.abs(other - own)) / np.nanmax(own)) for own, other in pairs)

    @property
    def changed_verdicts(self) -> int:
        return int(np.count_nonzero((self.cpu.scores > self.threshold) != (self.other.scores > self.threshold)))

    @property
    def aurocs(self) -> tuple[float, float] | None:
        """With each decoder; None: the test images are of one kind."""
        damaged = self.images.is_damaged
        if damaged.all() or not damaged.any():
            return None
        return auroc(damaged, self.cpu.scores), auroc(damaged, self.other.scores)

    def row(self) -> str:
        """A line of the table."""
        levels, scores, count = self.levels, 100 * self.scores, len(self.images.test)
        ranked = "" if self.aurocs is None else "{:.4f} / {:.4f}".format(*self.aurocs)
        cells = (
            f"{self.images.name}: {len(self.images.reference)} references, {count} tested",
            "{} x {}".format(*self.shape.size_px),
            f"{levels.mean():.2f} / {levels.max()}",
            f"{np.median(scores):.2f} % / {scores.max():.2f} %",
            f"{100 * self.maps:.1f} % of the peak",
            f"{self.changed_verdicts} of {count}",
            ranked,
        )
        return f"| {' | '.join(cells)} |"


def differences(images: Images, detector: Detector, other: Decoder, side_px: int | None = None) -> Differences:
    """How another decoder than that of the CPU changes model inputs, scores and maps."""
    options = ReferenceOptions() if side_px is None else ReferenceOptions(input=InputOptions(side_px))
    first = imaging.decode_image(images.reference[0], LIMITS)
    shape = detector.input_shape(options, (first.width, first.height))
    scorer = detector.fit(Cpu().decode(images.reference, shape), options, _ignore)
    own, others = (_scored(scorer, decoder, images.test, shape) for decoder in (Cpu(), other))
    return Differences(images, shape, scorer.model.calibration.image_threshold, own, others)


def auroc(is_damaged: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """The share of pairs of a damaged and an undamaged image whose scores have this order; equal ones count half."""
    damaged, intact = scores[is_damaged][:, None], scores[~is_damaged][None]
    return float(np.mean(damaged > intact) + np.mean(damaged == intact) / 2)


def print_table(sets: Sequence[Images], detector: Detector, other: Decoder, side_px: int | None = None) -> None:
    info = detector.info
    print(f"{info.backbone}, {info.precision}, on {info.device}. {other.name} against the CPU.\n\n{HEAD}", flush=True)
    for images in sets:
        print(differences(images, detector, other, side_px).row(), flush=True)
    if isinstance(other, OnDevice) and other.left_to_cpu:
        print(f"\nThe device could not decode {other.left_to_cpu} of the files: the CPU did, so they do not differ.")


def _jpegs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)


def _scored(scorer: Scorer, decoder: Decoder, files: Sequence[bytes], shape: InputShape) -> Scored:
    inputs, results = decoder.decode(files, shape), list[RawScores]()
    for model_input in inputs:
        results += scorer.score(model_input[None])[0]
    return Scored(inputs, np.array([each.image_score for each in results]), [each.anomaly_map for each in results])


def _ignore(_stage: LoadStage, _done: int, _total: int) -> None:
    """Nobody waits for the progress."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gpu.decoding", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", type=Path, help="with JPEGs in train/good and test/KIND")
    parser.add_argument(
        "--device", default="auto", help="cuda or cuda:N; cpu: with a stand-in for nvJPEG [default: auto]"
    )
    parser.add_argument("--backbone", default="efficientnet_lite2", help="[default: efficientnet_lite2]")
    parser.add_argument("--weights", type=Path, help="of the backbone")
    parser.add_argument("--input", type=int, metavar="PX", help="side of the model inputs [default: 224]")
    arguments = parser.parse_args()
    try:
        sets = [Images.of(folder) for folder in arguments.folder]
        device = resolve_device(arguments.device)
        detector = create_detector(backbone=arguments.backbone, weights=arguments.weights, device=str(device))
        stand_ins = (StandIn(fast_dct=False), StandIn(fast_dct=True))
        others: Sequence[Decoder] = stand_ins if device.type == "cpu" else (OnDevice(device),)
    except (FileNotFoundError, StartupError) as error:
        parser.error(str(error))
    for number, other in enumerate(others):
        if number:
            print()
        print_table(sets, detector, other, arguments.input)


if __name__ == "__main__":
    main()
