"""Measures how good a server's verdicts are on labeled images. Requires the extra `evaluate`."""

from patchserve_client.evaluation.dataset import (
    Dataset,
    DatasetError,
    LabeledImage,
    chosen_references,
    read_dataset,
)
from patchserve_client.evaluation.evaluation_page import evaluation_page
from patchserve_client.evaluation.html_page import Page
from patchserve_client.evaluation.measuring import Sweep, measured
from patchserve_client.evaluation.outcome import Failure, Outcome
from patchserve_client.evaluation.plots import draw_plots
from patchserve_client.evaluation.report import METRICS, report
from patchserve_client.evaluation.run import (
    Findings,
    ReferenceExistsError,
    Verdict,
    inspect,
    loaded_reference,
)
from patchserve_client.evaluation.setting import Axes, Setting
from patchserve_client.evaluation.sweep_document import sweep_document, sweep_page
from patchserve_client.evaluation.sweep_plot import draw_sweep
from patchserve_client.evaluation.sweep_result import SweepResult
from patchserve_client.evaluation.verdict_pictures import VerdictPicture, drawn_verdicts, worst_verdicts

__all__ = [
    "METRICS",
    "Axes",
    "Dataset",
    "DatasetError",
    "Failure",
    "Findings",
    "LabeledImage",
    "Outcome",
    "Page",
    "ReferenceExistsError",
    "Setting",
    "Sweep",
    "SweepResult",
    "Verdict",
    "VerdictPicture",
    "chosen_references",
    "draw_plots",
    "draw_sweep",
    "drawn_verdicts",
    "evaluation_page",
    "inspect",
    "loaded_reference",
    "measured",
    "read_dataset",
    "report",
    "sweep_document",
    "sweep_page",
    "worst_verdicts",
]
