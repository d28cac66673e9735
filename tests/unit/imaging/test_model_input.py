"""The model input is the notebook's."""

from __future__ import annotations

import numpy as np
from fakes.images import card
from torchvision import transforms

from patchserve_server.imaging import to_model_input


def test_a_model_input_equals_torchvisions_resize() -> None:
    image = card(3)
    expected = np.asarray(transforms.Resize((224, 224))(image))
    assert np.array_equal(to_model_input(image, 224), expected)
