"""Decoders of JPEG files for `gpu.decoding`: that of the server, that of a device, and a stand-in for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image, ImageOps

from patchserve_server import imaging
from patchserve_server.domain.images import ModelInputs, SentImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.codec import Codec
from patchserve_server.imaging.on_device import open_codec

LIMITS = imaging.ImageLimits()
_AT_ONCE = 32  # files that the device decodes in one call


class Decoder(Protocol):
    """Makes model inputs (N, H, W, 3) of files."""

    @property
    def name(self) -> str: ...

    def decode(self, files: Sequence[bytes], shape: InputShape) -> ModelInputs: ...


class Cpu:
    """The decoder of `--decode cpu`: libjpeg with exact DCT, and chroma that is interpolated; Pillow scales."""

    name = "CPU"

    def decode(self, files: Sequence[bytes], shape: InputShape) -> ModelInputs:
        return np.stack([imaging.to_model_input(imaging.decode_image(data, LIMITS), shape) for data in files])


class StandIn:
    """What a decoder of a device might do, where there is none: libjpeg that repeats chroma, without interpolation.

    nvJPEG repeats it too. Its DCT has roundings of its own, which are unknown here; libjpeg's fast DCT has coarse ones.
    """

    def __init__(self, *, fast_dct: bool) -> None:
        more = " and takes its fast DCT" if fast_dct else ""
        self.name = f"A stand-in for nvJPEG (libjpeg that repeats chroma{more})"
        self._fast_dct = fast_dct

    def decode(self, files: Sequence[bytes], shape: InputShape) -> ModelInputs:
        return np.stack([imaging.to_model_input(self._pixels(data), shape) for data in files])

    def _pixels(self, data: bytes) -> Image.Image:
        pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=self._fast_dct, fastupsample=True, strict=False)
        image = Image.fromarray(pixels)
        with Image.open(io.BytesIO(data)) as opened:
            image.getexif()[ExifTags.Base.Orientation] = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return ImageOps.exif_transpose(image)


class OnDevice:
    """The decoder of `--decode device`: nvJPEG, and scaling there. What the device may not get, the CPU decodes."""

    def __init__(self, device: torch.device) -> None:
        self.name = f"nvJPEG on {torch.cuda.get_device_name(device)}"
        self._codec: Codec = open_codec(device)
        self.left_to_cpu = 0  # files so far

    def decode(self, files: Sequence[bytes], shape: InputShape) -> ModelInputs:
        inputs = Cpu().decode(files, shape)
        numbered = [
            (number, file)
            for number, data in enumerate(files)
            if (file := imaging.device_file(SentImage(data), LIMITS)) is not None
        ]
        for start in range(0, len(numbered), _AT_ONCE):
            part = numbered[start : start + _AT_ONCE]
            for (number, _), pixels in zip(part, self._codec.decode([file for _, file in part], shape), strict=True):
                if isinstance(pixels, torch.Tensor):
                    inputs[number] = pixels.cpu().numpy()
                else:
                    self.left_to_cpu += 1
        self.left_to_cpu += len(files) - len(numbered)
        return inputs
