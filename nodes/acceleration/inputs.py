"""The widgets of Klein Acceleration: the rows of `base/acceleration.py`, the calibration, and the dials that
later policies brought along.

Order is part of saved workflows: new inputs go to the end.
"""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..base.acceleration import ACCELERATION_FIELDS
from ..base.field_inputs import make_input, make_inputs
from .calibration_files import BUILT_IN, list_choices
from .settings import list_own_fields

LEVEL = ACCELERATION_FIELDS[0]


def make_level_input(**changes: Any) -> io.Input:
    """The choice of a level, for nodes that have no other dial."""
    return make_input(LEVEL, **changes)


def list_acceleration_inputs() -> list[io.Input]:
    return [
        *make_inputs(ACCELERATION_FIELDS),
        io.Combo.Input(
            "calibration",
            options=list_choices(),
            default=BUILT_IN,
            optional=True,
            advanced=True,
            tooltip="What Klein Calibrate found on your model. built in takes what was fitted to this very "
            "model, steps and guidance, else the rule; rule (no table) always the rule; a name that one.",
        ),
        *make_inputs(list_own_fields()),
    ]
