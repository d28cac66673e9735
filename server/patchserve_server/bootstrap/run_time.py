"""Gives a running server the settings that may change at run time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from patchserve_server.bootstrap.limits import MIB, Admissions, image_capacity, server_limits
from patchserve_server.config import Settings
from patchserve_server.serving.admission import Capacity
from patchserve_server.serving.application import Application
from patchserve_server.serving.output_folder import FolderLimits


def change_admissions(admissions: Admissions, settings: Settings) -> None:
    """Admit by other limits from now on. What is held stays."""
    admissions.images.change_limit(image_capacity(settings))
    admissions.loads.change_limit(Capacity(settings.max_pending_loads))


def reconfigured(application: Application, settings: Settings) -> Application:
    """The application with other limits, for new calls: those in progress keep theirs."""
    admissions = Admissions(application.calls, application.images, application.loads)
    change_admissions(admissions, settings)
    limits = server_limits(settings, admissions, max_batch_size=application.limits.max_batch_size)
    of_engine = application.limits.max_bank_bytes  # it may be elsewhere, with settings of its own
    return replace(application, limits=replace(limits, max_bank_bytes=of_engine))


def folder_limits(settings: Settings) -> FolderLimits:
    """The limits of the folder of saved inspections."""
    return FolderLimits(
        settings.save_outputs_max_count,
        timedelta(days=settings.save_outputs_max_days),
        settings.save_outputs_max_mib * MIB,
    )
