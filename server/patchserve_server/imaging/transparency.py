"""Transparent images, as they look on white paper."""

from __future__ import annotations

from PIL import Image

from patchserve_server.imaging.pil_image import PilImage

_OPAQUE = 255
_PNG_DEPTH_AT = 24


def on_white(image: Image.Image) -> PilImage:
    """The image in mode RGB, over white where it is transparent: colors that nobody sees do not count.

    An opaque image has exactly the colors of convert("RGB").
    """
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    lowest, highest = alpha.getextrema()
    # A BMP with an unused fourth byte has zeros there; viewers show it as opaque.
    if lowest == _OPAQUE or (image.format == "BMP" and highest == 0):
        return rgba.convert("RGB")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba.convert("RGB"), mask=alpha)
    return canvas


def scale_transparent_color(image: Image.Image, data: bytes) -> None:
    """Make the transparent gray of a loaded PNG fit its pixels, which Pillow scales to 8 bits."""
    color, bits = image.info.get("transparency"), data[_PNG_DEPTH_AT]
    if isinstance(color, int) and image.mode in ("1", "L"):
        largest = (1 << bits) - 1
        image.info["transparency"] = (color & largest) * (255 // largest)
