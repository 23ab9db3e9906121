"""Release 1.0.0's presets, so that later ones can be measured against them on the weights of the day.

Only their masks differ from today's in kind: four steps at the front always computed, two at the end, at most
three skipped in a row, weights of ten fixed parts of the run in place of its own sigmas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SPEEDS = {"low": 1.33, "medium": 1.75, "high": 2.4}
HEAD, TAIL, CAP = 4, 2, 3
HIGHEST, HIGHEST_CAP = 3.1, 5
"""Not a word of 1.0.0: its forecast took any speed, and this one with the largest cap only."""
PROFILE = (0.30, 0.38, 0.47, 0.59, 0.73, 0.92, 1.15, 1.43, 1.79, 2.24)


def first_mask(level: str, steps: int) -> tuple[bool, ...]:
    """Per step True where 1.0.0 skipped it."""
    from kleinod.nodes.acceleration.plan import budget_mask

    computed = math.floor(steps / SPEEDS.get(level, HIGHEST) + 1e-9)
    cap = CAP if level in SPEEDS else HIGHEST_CAP
    weights = [PROFILE[min(len(PROFILE) - 1, i * len(PROFILE) // steps)] for i in range(steps)]
    return budget_mask(computed, (HEAD, steps - TAIL), cap, weights)


@contextmanager
def first_release(level: str) -> Iterator[None]:
    """While it is open the forecast skips what 1.0.0 skipped at this level."""
    from kleinod.nodes.acceleration.policies import forecast

    def plan(_settings: Any, run: Any) -> Any:
        return forecast.Plan(first_mask(level, run.steps), HIGHEST_CAP)

    kept, forecast.make_plan = forecast.make_plan, plan
    try:
        yield
    finally:
        forecast.make_plan = kept
