"""Where ComfyUI keeps what Klein Calibrate saved."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..base.values import Calibration
from . import calibration

BUILT_IN = "built in"


def calibrations_folder() -> Path:
    """Where calibrations lie: beside the pack's other notes in ComfyUI's user folder, never in the pack."""
    return Path(folder_paths.get_system_user_directory("kleinod")) / "calibrations"


def list_calibrations() -> list[str]:
    """Names that `load_calibration` takes, sorted; empty before the first was made."""
    return calibration.list_names(calibrations_folder())


def load_calibration(name: str) -> Calibration:
    """The calibration saved under `name`. Raises InputError where it is gone or damaged."""
    return calibration.load(name, calibrations_folder())


def list_choices() -> list[str]:
    """For a picker: the built-in values first."""
    return [BUILT_IN, *list_calibrations()]


def choose_calibration(choice: str) -> Calibration | None:
    """The calibration of a picker's choice; None for the built-in values."""
    return None if choice == BUILT_IN else load_calibration(choice)
