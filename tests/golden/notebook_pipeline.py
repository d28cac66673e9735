"""The documented notebook pipeline, with the libraries of the notebook. Shares no code with the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from torchvision import transforms
from torchvision.models import wide_resnet50_2

SIZE_PX = 224

_TO_MODEL_INPUT = transforms.Compose(
    [
        transforms.Resize((SIZE_PX, SIZE_PX)),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


class NotebookPipeline:
    """The whole torchvision network with hooks, scikit-learn's search, OpenCV's map."""

    def __init__(self, weights: Path) -> None:
        self.model = wide_resnet50_2()
        self.model.load_state_dict(torch.load(weights, weights_only=True))
        self.model.eval()
        self.features: list[torch.Tensor] = []
        for layer in (self.model.layer2, self.model.layer3):
            layer.register_forward_hook(lambda _module, _inputs, output: self.features.append(output))

    def patches(self, image: Image.Image) -> NDArray[np.float32]:
        """Patch vectors (784, 1536)."""
        self.features.clear()
        with torch.no_grad():
            self.model(_TO_MODEL_INPUT(image.convert("RGB")).unsqueeze(0))
        layer2, layer3 = self.features
        layer3 = torch.nn.functional.interpolate(layer3, size=layer2.shape[-2:], mode="bilinear", align_corners=False)
        embedding = torch.cat([layer2, layer3], dim=1)  # (1, 1536, 28, 28)
        return embedding.squeeze(0).permute(1, 2, 0).reshape(-1, embedding.shape[1]).numpy()

    def run(
        self, reference_images: Sequence[Image.Image], image: Image.Image
    ) -> tuple[NDArray[np.float32], float, NDArray[np.uint8]]:
        """Map scaled to 0..1 (224, 224), damage_percentage, and overlay (H, W, 3) RGB, as large as the image."""
        neighbors = NearestNeighbors(n_neighbors=9)
        neighbors.fit(np.concatenate([self.patches(reference) for reference in reference_images]))
        distances, _ = neighbors.kneighbors(self.patches(image))
        scores = distances.mean(axis=1).reshape(28, 28).astype(np.float32)
        upscaled = cv2.resize(scores, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_LINEAR)
        map01 = (upscaled - upscaled.min()) / (upscaled.max() - upscaled.min() + 1e-8)
        damage_percentage = 100.0 * float((map01 > 0.5).sum()) / map01.size
        return map01, damage_percentage, _overlay(map01, image)


def _overlay(map01: NDArray[np.float32], image: Image.Image) -> NDArray[np.uint8]:
    colors = cv2.applyColorMap((map01 * 255).astype(np.uint8), cv2.COLORMAP_JET)
    colors = cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)
    small = np.asarray(image.convert("RGB").resize((SIZE_PX, SIZE_PX)))  # PIL's default filter: bicubic
    blend = cv2.addWeighted(small, 0.5, colors, 0.5, 0)
    return np.asarray(Image.fromarray(blend).resize(image.size, Image.Resampling.LANCZOS))
