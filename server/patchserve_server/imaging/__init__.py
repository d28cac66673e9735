"""Bytes to RGB arrays and back; score maps to heat maps, overlays and regions."""

from patchserve_server.imaging.decode import ImageLimits, decode_rgb
from patchserve_server.imaging.heatmap import heat_levels
from patchserve_server.imaging.overlay import encode_png, render_overlay
from patchserve_server.imaging.regions import find_regions
from patchserve_server.imaging.resize import to_model_input

__all__ = [
    "ImageLimits",
    "decode_rgb",
    "encode_png",
    "find_regions",
    "heat_levels",
    "render_overlay",
    "to_model_input",
]
