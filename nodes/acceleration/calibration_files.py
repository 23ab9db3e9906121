"""Where ComfyUI keeps what Klein Calibrate saved."""

from __future__ import annotations

from pathlib import Path

from ..base import seams
from ..base.acceleration import FittedTable
from ..base.errors import InputError
from ..base.values import Calibration
from . import calibration

folder_paths = seams.find("folder_paths")

BUILT_IN = "built in"
RULE = "rule (no table)"
"""No name of a file: those have no brackets."""


def calibrations_folder() -> Path:
    """Where calibrations lie: beside the pack's other notes in ComfyUI's user folder, never in the pack."""
    return Path(folder_paths.get_system_user_directory("kleinod")) / "calibrations"


def list_calibrations() -> list[str]:
    """Names that `load_calibration` takes, sorted; empty before the first was made."""
    return calibration.list_names(calibrations_folder()) if folder_paths else []


def load_calibration(name: str) -> Calibration:
    """The calibration saved under `name`. Raises InputError where it is gone or damaged."""
    return calibration.load(name, calibrations_folder())


def list_choices() -> list[str]:
    """For a picker: the built-in values first."""
    return [BUILT_IN, RULE, *list_calibrations()]


def choose_calibration(choice: str) -> Calibration | None:
    """The calibration of a picker's choice; None for the built-in values and what was fitted to the model."""
    if choice == RULE:
        return Calibration(RULE)
    return None if choice == BUILT_IN else load_calibration(choice)


def tables_of(fingerprint: str) -> tuple[FittedTable, ...]:
    """All that Klein Calibrate fitted to the model of this fingerprint.

    What cannot be read is left out here; who picks it by name is told.
    """
    if not fingerprint:
        return ()
    found: tuple[FittedTable, ...] = ()
    for name in list_calibrations():
        try:
            found = calibration.merge_tables(found, load_calibration(name).tables)
        except InputError:
            continue
    return tuple(table for table in found if table.model == fingerprint)
