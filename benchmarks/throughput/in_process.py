"""Systems without a socket, one image at a time: the bare backbone, and anomalib's inferencers.

bare: the layers of our backbone on prepared inputs. No server around it can be faster.
torch, openvino: anomalib's PatchCore with the same weights and the patches of the reference image as its bank; it gets
the path of a JPEG. Its export to OpenVINO must be told that there is one image at a time: anomalib 2.7 fixes the number
of images at that of its example, two.
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
from patchserve_server.domain.input_options import InputShape
from throughput.closed_loop import ClosedLoop
from throughput.inputs import SIZE_PX, open_backbone
from throughput.processes import Handler, serve_requests

_ONNX_OPTIONS = {"opset_version": 18, "dynamic_axes": None}
_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}


def start_bare(options: argparse.Namespace) -> tuple[str, Callable[[Path], object]]:
    backbone = open_backbone(options.backbone, options.precision, options.weights)
    inputs = {path: _model_input(path) for path in [*options.images, options.reference]}
    runtime = backbone.runtime_for(inputs[options.reference], lambda _stage, _done, _total: None)
    return runtime.precision, torch.inference_mode()(lambda path: runtime.layers(inputs[path]))


def _model_input(path: Path) -> ModelInputs:
    """(1, H, W, 3) uint8."""
    image = imaging.decode_image(path.read_bytes(), imaging.ImageLimits())
    return imaging.to_model_input(image, InputShape.square())[None]


def fit_anomalib(options: argparse.Namespace) -> Any:
    from anomalib.data.utils import read_image  # noqa: PLC0415 - the import takes seconds
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


def start_anomalib_torch(options: argparse.Namespace) -> tuple[str, Callable[[Path], object]]:
    from anomalib.deploy import TorchInferencer  # noqa: PLC0415

    os.environ["TRUST_REMOTE_CODE"] = "1"  # the file was written by the line below
    path = fit_anomalib(options).to_torch(Path())
    return "fp32", torch.inference_mode()(TorchInferencer(path, device="cpu").predict)


def start_anomalib_openvino(options: argparse.Namespace) -> tuple[str, Callable[[Path], object]]:
    from anomalib.deploy import OpenVINOInferencer  # noqa: PLC0415

    path = fit_anomalib(options).to_openvino(Path(), input_size=SIZE_PX[::-1], onnx_kwargs=_ONNX_OPTIONS)
    inferencer = OpenVINOInferencer(path, device="CPU")
    return _PRECISIONS[inferencer.model.get_property("INFERENCE_PRECISION_HINT").to_string()], inferencer.predict


# Each returns the precision, and a function that scores one image.
_STARTERS = {"bare": start_bare, "torch": start_anomalib_torch, "openvino": start_anomalib_openvino}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures one system in this process; started by make bench.")
    parser.add_argument("kind", choices=_STARTERS)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="a folder for temporary files")
    parser.add_argument("images", type=Path, nargs="+")
    return parser.parse_args()


def _start() -> tuple[dict[str, Any], Handler]:
    options = _options()
    torch.set_num_threads(os.cpu_count() or 1)
    os.chdir(options.folder)  # anomalib writes a cache into the current folder
    precision, run = _STARTERS[options.kind](options)
    run(options.images[0])

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        loop = ClosedLoop(1, request["seconds"])
        for image in itertools.cycle(options.images):
            sent_at_s = time.perf_counter()
            run(image)
            loop.record(sent_at_s)
            if loop.is_done:
                break
        return loop.summary()

    return {"precision": precision}, handle


if __name__ == "__main__":
    serve_requests(_start)
