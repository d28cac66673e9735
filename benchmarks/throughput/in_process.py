"""What has no socket, one image after the other: the bare backbone, and anomalib's inferencers.

bare: our backbone's layers, of prepared inputs: no server of it can be faster.
torch, openvino: anomalib's PatchCore around the same weights, with the reference image's patches as its bank, given
the path of a JPEG. Its export to OpenVINO has to be told that there is one image at a time: as it stands in 2.7 the
number of images is fixed at the example's, two.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from patchserve_server import imaging
from patchserve_server.domain.images import ModelInputs
from throughput.material import SIZE_PX, opened
from throughput.processes import Answer, answer_questions
from throughput.turns import Turns

_ONNX_OPTIONS = {"opset_version": 18, "dynamic_axes": None}
_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}


def bare(options: argparse.Namespace) -> tuple[str, Callable[[Path], object]]:
    backbone = opened(options.backbone, options.precision, options.weights)
    inputs = {path: _prepared(path, backbone.spec.input_size_px) for path in [*options.images, options.reference]}
    runtime = backbone.runtime_for(inputs[options.reference], lambda _stage, _done, _total: None)
    return runtime.precision, torch.inference_mode()(lambda path: runtime.layers(inputs[path]))


def _prepared(path: Path, size_px: int) -> ModelInputs:
    """(1, S, S, 3)."""
    return imaging.to_model_input(imaging.decode_image(path.read_bytes(), imaging.ImageLimits()), size_px)[None]


def anomalib_model(options: argparse.Namespace) -> Any:
    from anomalib.data.utils import read_image  # noqa: PLC0415 - takes seconds
    from anomalib.models import Patchcore  # noqa: PLC0415

    size_px = (224, 224)
    model = Patchcore(pre_trained=False, pre_processor=Patchcore.configure_pre_processor(image_size=size_px))
    state = torch.load(options.weights, weights_only=True)
    model.model.feature_extractor.feature_extractor.load_state_dict(
        {name: values for name, values in state.items() if not name.startswith(("layer4.", "fc."))}
    )
    with torch.inference_mode():
        model.model.train()  # collects patches; no network is trained
        model.model(model.pre_processor(read_image(options.reference, as_tensor=True)[None]))
    model.model.memory_bank = model.model.embedding_store.pop().clone()
    return model.eval()


def anomalib_torch(options: argparse.Namespace) -> tuple[str, Callable[[Path], object]]:
    from anomalib.deploy import TorchInferencer  # noqa: PLC0415

    os.environ["TRUST_REMOTE_CODE"] = "1"  # it is ours, written a moment ago
    path = anomalib_model(options).to_torch(Path())
    return "fp32", torch.inference_mode()(TorchInferencer(path, device="cpu").predict)


def anomalib_openvino(options: argparse.Namespace) -> tuple[str, Callable[[Path], object]]:
    from anomalib.deploy import OpenVINOInferencer  # noqa: PLC0415

    path = anomalib_model(options).to_openvino(Path(), input_size=SIZE_PX[::-1], onnx_kwargs=_ONNX_OPTIONS)
    inferencer = OpenVINOInferencer(path, device="CPU")
    return _PRECISIONS[inferencer.model.get_property("INFERENCE_PRECISION_HINT").to_string()], inferencer.predict


_KINDS = {"bare": bare, "torch": anomalib_torch, "openvino": anomalib_openvino}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=_KINDS)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="where files may be left")
    parser.add_argument("images", type=Path, nargs="+")
    return parser.parse_args()


def _start() -> tuple[dict[str, Any], Answer]:
    options = _options()
    torch.set_num_threads(os.cpu_count() or 1)
    os.chdir(options.folder)  # anomalib leaves a cache where it runs
    precision, run = _KINDS[options.kind](options)
    run(options.images[0])

    def answered(question: dict[str, Any]) -> dict[str, Any]:
        turns = Turns(1, question["seconds"])
        for image in itertools.cycle(options.images):
            sent_s = time.perf_counter()
            run(image)
            turns.record(sent_s)
            if turns.enough:
                break
        return turns.found()

    return {"precision": precision}, answered


if __name__ == "__main__":
    answer_questions(_start)
