"""Measures how good a server's verdicts are on labeled images. Requires the extra `evaluate`."""

from patchserve_client.evaluation.dataset import (
    Dataset,
    DatasetError,
    LabeledImage,
    chosen_references,
    read_dataset,
)
from patchserve_client.evaluation.plots import draw_plots
from patchserve_client.evaluation.report import METRICS, report
from patchserve_client.evaluation.run import (
    Findings,
    ReferenceExistsError,
    Verdict,
    inspect,
    loaded_reference,
)

__all__ = [
    "METRICS",
    "Dataset",
    "DatasetError",
    "Findings",
    "LabeledImage",
    "ReferenceExistsError",
    "Verdict",
    "chosen_references",
    "draw_plots",
    "inspect",
    "loaded_reference",
    "read_dataset",
    "report",
]
