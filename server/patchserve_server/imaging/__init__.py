"""Bytes to RGB arrays and back; score maps to heat maps, overlays and regions."""

import cv2

from patchserve_server.imaging.decode import MAX_SIDE_PX, ImageLimits, decode, opened
from patchserve_server.imaging.encode import check_overlay_size, encode_overlay
from patchserve_server.imaging.heatmap import heat_levels
from patchserve_server.imaging.overlay import Canvas, overlay_size, prepare_canvas, render_overlay
from patchserve_server.imaging.pil_image import PilImage
from patchserve_server.imaging.regions import find_regions
from patchserve_server.imaging.resize import to_model_input

# Images are handled side by side on the server's own threads: a pool of OpenCV's under each would only contend.
cv2.setNumThreads(1)

__all__ = [
    "MAX_SIDE_PX",
    "Canvas",
    "ImageLimits",
    "PilImage",
    "check_overlay_size",
    "decode",
    "encode_overlay",
    "find_regions",
    "heat_levels",
    "opened",
    "overlay_size",
    "prepare_canvas",
    "render_overlay",
    "to_model_input",
]
