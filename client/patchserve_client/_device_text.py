"""Where a server computes, in words."""


def device_text(device: str, decode: str) -> str:
    """The device, and that it decodes: of `ServerInfo`, as programs show it next to what they have measured."""
    return f"{device}, which decodes JPEGs" if decode == "device" else device
