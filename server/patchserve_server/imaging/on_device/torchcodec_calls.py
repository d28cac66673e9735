"""torchcodec: decodes and encodes JPEG files, by nvJPEG on a GPU and by libjpeg-turbo on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from patchserve_server.domain.errors import StartupError

QUALITY: Final = 90  # as that of overlays from the CPU


def import_torchcodec() -> None:
    """Imports it, which takes a tenth of a second.

    Raises:
        StartupError: it is not installed, or cannot be used here.
    """
    try:
        import torchcodec.decoders  # noqa: PLC0415 - an extra
        import torchcodec.encoders  # noqa: F401, PLC0415 - as above
    except ModuleNotFoundError as error:
        raise StartupError(
            f'--decode device needs the extra gpu ({error.name} is missing): pip install ".[server,gpu]". Or use '
            "--decode cpu."
        ) from None
    except (ImportError, OSError, RuntimeError) as error:  # its libraries do not fit this torch or this system
        raise StartupError(f"--decode device needs torchcodec, which cannot be loaded: {_first_line(error)}") from error


def decode(data: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """The pixels of each file, (3, H, W) uint8 on the device, as they are stored.

    On a GPU it waits for the current stream, before and after it decodes.

    Raises:
        torch.OutOfMemoryError: the device has too little memory.
        RuntimeError: one of the files cannot be decoded; it is not said which one.
    """
    from torchcodec.decoders import decode_jpeg  # noqa: PLC0415 - an extra

    # Of bytes it makes tensors itself, and changes the filters of warnings meanwhile: they are those of all threads.
    sources = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in data]
    try:
        decoded = decode_jpeg(sources, mode="RGB", device=device)
    except RuntimeError as error:
        if "out of memory" in str(error):  # of torch, but its kind is lost on the way through the library
            raise torch.OutOfMemoryError(reason_of(error)) from error
        raise
    return decoded if isinstance(decoded, list) else [decoded]


def encode(pixels: Tensor) -> Tensor:
    """The JPEG file (N,) uint8 of pixels (3, H, W) uint8, on their device.

    Raises:
        RuntimeError: it cannot be encoded.
    """
    from torchcodec.encoders import JpegEncoder  # noqa: PLC0415 - an extra

    return JpegEncoder(pixels).to_tensor(quality=QUALITY)


def reason_of(error: Exception) -> str:
    """What went wrong, without the lines of code that the library adds."""
    return _first_line(error).rpartition(".cpp:")[2].partition(", ")[2] or _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
