"""Drift: a rolling comparison of the recent scores of each reference with the normal scores of its calibration."""

from patchserve_server.serving.drift.watch import DriftWatch

__all__ = ["DriftWatch"]
