"""What is said of the device next to what was measured on it."""

from __future__ import annotations

from patchserve_client._device_text import device_text


def test_a_device_that_decodes_is_named_as_one() -> None:
    assert device_text("cuda:0", "device") == "cuda:0, which decodes JPEGs"
    assert device_text("cuda:0", "cpu") == "cuda:0"
    assert device_text("cpu", "") == "cpu"  # an older server
