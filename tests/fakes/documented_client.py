"""A client of the documented HTTP service: its three calls, with files on disk. It knows nothing of this project.

It also runs alone: python documented_client.py URL REFERENCE IMAGE RESULT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = 120


def inspect(url: str, reference: Path, image: Path, result: Path) -> dict[str, Any]:
    """Loads the reference, saves the overlay as `result`; returns what the three calls say."""
    health = requests.get(f"{url}/health", timeout=TIMEOUT_S).json()
    with reference.open("rb") as file:
        loaded = requests.post(f"{url}/load_reference", files={"image": file}, timeout=TIMEOUT_S)
    with image.open("rb") as file:
        overlay = requests.post(f"{url}/infer", files={"image": file}, timeout=TIMEOUT_S)
    result.write_bytes(overlay.content)
    with image.open("rb") as file:
        judged = requests.post(f"{url}/infer_json", files={"image": file}, timeout=TIMEOUT_S)
    for answer in (loaded, overlay, judged):
        answer.raise_for_status()
    return {"health": health, "loaded": loaded.json(), "judged": judged.json()}


if __name__ == "__main__":
    print(json.dumps(inspect(sys.argv[1], *map(Path, sys.argv[2:]))))
