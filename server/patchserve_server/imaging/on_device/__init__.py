"""JPEG files on a GPU: decoded, scaled, drawn on and encoded there. Nothing else of `imaging` imports torch."""

from patchserve_server.imaging.on_device.codec import TorchCodec, open_codec

__all__ = ["TorchCodec", "open_codec"]
