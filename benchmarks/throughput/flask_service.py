"""The notebook's PatchCore as a plain HTTP service, which patchserve is compared with.

One Flask route around torchvision's network with hooks, scikit-learn's nearest neighbors, OpenCV's color map and
Pillow's PNG, each used as its documentation shows. Shares no code with the server. Runs under gunicorn.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from flask import Flask, Response, request
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.neighbors import NearestNeighbors
from torchvision import transforms
from torchvision.models import wide_resnet50_2

READY = "The Flask service is ready"
MAP_PX = 224

_TO_MODEL_INPUT = transforms.Compose(
    [
        transforms.Resize((MAP_PX, MAP_PX)),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


class PatchCore:
    """A memory bank of one reference image."""

    def __init__(self, weights: str, reference: str) -> None:
        self.network = wide_resnet50_2()
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.network.eval()
        self.layers: list[torch.Tensor] = []
        for layer in (self.network.layer2, self.network.layer3):
            layer.register_forward_hook(lambda _module, _inputs, output: self.layers.append(output))
        self.neighbors = NearestNeighbors(n_neighbors=9)
        self.neighbors.fit(self.patches(Image.open(reference).convert("RGB")))

    def patches(self, image: Image.Image) -> NDArray[np.float32]:
        """Patch vectors (784, 1536)."""
        self.layers.clear()
        with torch.no_grad():
            self.network(_TO_MODEL_INPUT(image)[None])
        layer2, layer3 = self.layers
        layer3 = torch.nn.functional.interpolate(layer3, size=layer2.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([layer2, layer3], dim=1)[0].permute(1, 2, 0).flatten(0, 1).numpy()

    def heat_map(self, image: Image.Image) -> NDArray[np.float32]:
        """The anomaly map, scaled to 0..1 (224, 224)."""
        distances, _ = self.neighbors.kneighbors(self.patches(image))
        scores = distances.mean(axis=1).reshape(28, 28).astype(np.float32)
        scores = cv2.resize(scores, (MAP_PX, MAP_PX), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        heat: NDArray[np.float32] = (scores - scores.min()) / (scores.max() - scores.min() + 1e-8)
        return heat


def overlay_png(image: Image.Image, heat: NDArray[np.float32]) -> bytes:
    """The heat map over the image, in the size of the image."""
    colors = cv2.cvtColor(cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    blend = cv2.addWeighted(np.asarray(image.resize((MAP_PX, MAP_PX))), 0.5, colors, 0.5, 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(blend).resize(image.size, Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def create_app(weights: str, reference: str) -> Flask:
    app, patchcore = Flask(__name__), PatchCore(weights, reference)

    def inspect() -> Response:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(request.get_data()))).convert("RGB")
        heat = patchcore.heat_map(image)
        damage_percentage = 100 * float((heat > 0.5).mean())
        headers = {"Damage-Percentage": str(damage_percentage), "Anomaly-Detected": str(damage_percentage > 5)}
        return Response(overlay_png(image, heat), mimetype="image/png", headers=headers)

    app.add_url_rule("/inspect", view_func=inspect, methods=["POST"])
    patchcore.heat_map(Image.open(Path(reference)).convert("RGB"))  # warm up
    print(READY, file=sys.stderr, flush=True)
    return app
