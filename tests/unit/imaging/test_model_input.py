"""The model input is the notebook's."""

from __future__ import annotations

import numpy as np
from fakes.images import card
from torchvision import transforms

from patchserve_server.domain.input_options import InputShape
from patchserve_server.imaging import to_model_input


def test_a_model_input_equals_torchvisions_resize() -> None:
    image = card(3)
    expected = np.asarray(transforms.Resize((224, 224))(image))
    assert np.array_equal(to_model_input(image, InputShape.square()), expected)


def test_a_model_input_may_have_any_proportions() -> None:
    image = card(3)
    expected = np.asarray(transforms.Resize((64, 320))(image))
    assert np.array_equal(to_model_input(image, InputShape(64, 320)), expected)
