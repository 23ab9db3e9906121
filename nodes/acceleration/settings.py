"""From what the nodes' widgets hold to an Acceleration, and a text that says what one means."""

from __future__ import annotations

import json
from typing import Any

from ..base.acceleration import ACCELERATION_FIELDS, Acceleration, Calibration
from ..base.fields import Field, read_widgets
from ..base.sentences import Sentence, join, say
from .policies.registry import POLICIES, list_wanted

# Run lengths the text works out: Runware's default and its most.
EXAMPLES = (28, 50)


def list_own_fields() -> list[Field]:
    """Dials that policies beyond the API's brought along."""
    return [field for policy in POLICIES for field in policy.fields]


def make_acceleration(calibration: Calibration | None = None, **widgets: Any) -> Acceleration:
    """The value of the widgets, by Acceleration's own names, UNSET in a number of the window being "not set".

    Raises InputError where they contradict each other.
    """
    own = read_widgets(list_own_fields(), widgets)
    for field in list_own_fields():
        field.check(own[field.name])
    fields = read_widgets(ACCELERATION_FIELDS, widgets)
    return Acceleration(**fields, calibration=calibration, options=tuple(own.items()))


def choose_acceleration(preset: str, settings: Acceleration | None) -> Acceleration:
    """Connected settings win over the preset."""
    return Acceleration(acceleration=preset) if settings is None else settings


def describe(acceleration: Acceleration) -> str:
    """Lines `title  text`: what every policy in force says of itself, and what Runware gets."""
    wanted = list_wanted(acceleration)
    lines = [line for policy in wanted for line in policy.describe(acceleration, EXAMPLES)]
    titles = {title for title, _ in lines}
    if not lines:
        lines.append((say("method"), say("none: every step is computed bit for bit as without this node")))
        lines += [("threshold", text) for text in [_never(acceleration)] if text]
    elif "method" not in titles:
        lines.insert(0, ("method", "none of the step caches"))
    if acceleration.calibration is not None:
        fitted = dict.fromkeys(table.describe() for table in acceleration.calibration.tables)
        told = [Sentence(acceleration.calibration.name)]
        if fitted:
            told.append(say("fitted for: %1", join("; ", fitted)))
        elif acceleration.calibration.tea_coefficients:
            told.append(say("holds Tea's curve only: steps are chosen by the rule"))
        lines.append((say("calibration"), join(", ", told)))
    lines.append((say("at Runware"), json.dumps(acceleration.to_runware())))
    return "\n".join(f"{title:<13}{text}" for title, text in lines)


def _never(acceleration: Acceleration) -> str:
    """A cache that is on with a dial of 0: said, since Runware's own text would read 0 as its boldest."""
    if acceleration.tea_cache:
        return "teaCacheDistance 0: never reuses"
    name = "fbCacheThreshold" if acceleration.fb_cache else "dbCacheThreshold"
    if not (acceleration.fb_cache or acceleration.db_cache):
        return ""
    return f"{name} 0: never reuses. Runware's text would read 0 as its boldest; here that is 0.01"
