"""Decodes images, and turns anomaly maps into heat maps, regions and encoded overlays."""

from patchserve_server.imaging.canvas import Canvas, overlay_size, prepare_canvas
from patchserve_server.imaging.decode import decode_image, open_image, to_png
from patchserve_server.imaging.device_file import device_file
from patchserve_server.imaging.encode import check_overlay_bytes, check_overlay_size, encode_overlay, encoded_overlay
from patchserve_server.imaging.formats import file_ending, media_type_of
from patchserve_server.imaging.heatmap import heat_levels
from patchserve_server.imaging.libraries import configure_libraries
from patchserve_server.imaging.limits import MAX_SIDE_PX, ImageLimits
from patchserve_server.imaging.overlay import render_overlay
from patchserve_server.imaging.pil_image import PilImage
from patchserve_server.imaging.png import encode_png
from patchserve_server.imaging.raw_frames import to_rgb
from patchserve_server.imaging.regions import find_regions
from patchserve_server.imaging.resize import to_model_input
from patchserve_server.imaging.sample_depth import may_have_16_bits
from patchserve_server.imaging.thumbnail import draw_thumbnail, shrink_for_thumbnail, small_image

__all__ = [
    "MAX_SIDE_PX",
    "Canvas",
    "ImageLimits",
    "PilImage",
    "check_overlay_bytes",
    "check_overlay_size",
    "configure_libraries",
    "decode_image",
    "device_file",
    "draw_thumbnail",
    "encode_overlay",
    "encode_png",
    "encoded_overlay",
    "file_ending",
    "find_regions",
    "heat_levels",
    "may_have_16_bits",
    "media_type_of",
    "open_image",
    "overlay_size",
    "prepare_canvas",
    "render_overlay",
    "shrink_for_thumbnail",
    "small_image",
    "to_model_input",
    "to_png",
    "to_rgb",
]
