"""What a reference costs, in words."""

from __future__ import annotations

from patchserve_client import LoadCost
from patchserve_client._counted import counted


def cost_text(cost: LoadCost) -> str:
    """Such as "1600 patches an image, 74.0 MiB of memory in use, 40 ms an image"."""
    patches = counted(cost.patches_per_image, "patch", "patches")
    memory = f"{cost.memory_bytes / 2**20:,.1f} MiB of memory in use"
    recall = f", finds {100 * cost.search_recall:.1f} % of the nearest rows" if 0 < cost.search_recall < 1 else ""
    return f"{patches} an image, {memory}, {cost.ms_per_image:,.0f} ms an image{recall}"
