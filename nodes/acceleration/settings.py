"""From what the nodes' widgets hold to an Acceleration, and a text that says what one means."""

from __future__ import annotations

import json
from typing import Any

from ..base.values import Acceleration
from . import presets
from .plan import make_plan

# Widgets of numbers cannot be empty; this one stands for "not set".
UNSET = -1
WINDOW = (
    "cache_start_step",
    "cache_end_step",
    "cache_start_step_percentage",
    "cache_end_step_percentage",
)
# Run lengths the text works out: Runware's default and its most.
EXAMPLES = (28, 50)


def make_acceleration(**fields: Any) -> Acceleration:
    """The value of the widgets `fields` (Acceleration's own names), UNSET in a window's field being None.

    Raises ValueError, in an artist's words, where they contradict each other.
    """
    window = {name: None for name in WINDOW if fields.get(name) == UNSET}
    return Acceleration(**{**fields, **window})


def choose_acceleration(preset: str, settings: Acceleration | None) -> Acceleration:
    """Connected settings win over the preset."""
    return Acceleration(acceleration=preset) if settings is None else settings


def describe(acceleration: Acceleration) -> str:
    """Lines `title  text`: the method, what its dial means inside, which steps it skips, what Runware
    gets.
    """
    lines = [("method", _method(acceleration))]
    lines += [("threshold", text) for text in [_threshold(acceleration)] if text]
    lines += [(f"{steps} steps", _steps(acceleration, steps)) for steps in EXAMPLES]
    lines += [("guidance", text) for text in [_guidance(acceleration)] if text]
    lines += [("references", text) for text in [_references(acceleration)] if text]
    if acceleration.calibration is not None:
        lines.append(("calibration", acceleration.calibration.name))
    lines.append(("at Runware", json.dumps(acceleration.to_runware())))
    return "\n".join(f"{title:<13}{text}" for title, text in lines)


def _method(acceleration: Acceleration) -> str:
    method = acceleration.method
    if presets.is_off(acceleration):
        return "none: every step is computed, the picture is bit for bit the same as without this node"
    if method == "forecast":
        asked = "speed" if acceleration.speed else acceleration.acceleration
        return f"forecast, {presets.requested_speed(acceleration):.2f}x fewer computed steps ({asked})"
    if method == "none":
        return "none of the step caches"
    return {"first_block": "first block", "tea": "Tea", "dual_block": "dual block"}[method] + " cache"


def _threshold(acceleration: Acceleration) -> str:
    method = acceleration.method
    if method in ("none", "forecast"):
        return ""
    name, dial = {
        "first_block": ("fbCacheThreshold", acceleration.fb_cache_threshold),
        "tea": ("teaCacheDistance", acceleration.tea_cache_distance),
        "dual_block": ("dbCacheThreshold", acceleration.db_cache_threshold),
    }[method]
    if dial <= 0:
        return f"{name} 0: never reuses" + (
            "" if method == "tea" else ". Runware's text would read 0 as its boldest; here that is 0.01"
        )
    limit = presets.resolved_threshold(acceleration)
    meaning = "higher reuses more" if method == "tea" else acceleration.threshold_meaning
    changed = {
        "first_block": "the first block's output changed by less than",
        "tea": "the changes since the last computed step sum up to less than",
        "dual_block": f"the output of the first {acceleration.front_blocks} block(s) changed by less than",
    }[method]
    return f"{name} {dial:g} ({meaning}), internally {limit:.4f}: a step is reused while {changed} that"


def _steps(acceleration: Acceleration, steps: int) -> str:
    """What the plan of a run of `steps` steps says, or why there is none."""
    if presets.is_off(acceleration):
        return "all computed"
    try:
        plan = make_plan(acceleration, steps)
    except ValueError as error:
        return str(error)
    if plan.idle:
        return "; ".join(plan.notes) or "all computed"
    if plan.reuse:
        pattern = "".join("R" if skipped else "C" for skipped in plan.reuse)
        return "; ".join([f"{pattern}, {pattern.count('C')} computed", *plan.notes])
    start, end = plan.window
    return f"reuses between steps {start} and {end}, at most {plan.cap} in a row, as the picture allows"


def _guidance(acceleration: Acceleration) -> str:
    parts = []
    if acceleration.guidance_interval > 1:
        parts.append(f"negative prompt on every {_ordinal(acceleration.guidance_interval)} computed step")
    if acceleration.guidance_end_percentage < 100:
        parts.append(f"no guidance after {acceleration.guidance_end_percentage}% of the steps")
    return ", ".join(parts)


def _references(acceleration: Acceleration) -> str:
    if acceleration.reference_cache == "off":
        return ""
    if acceleration.reference_cache == "refresh":
        every = _ordinal(acceleration.reference_interval)
        return f"experimental: computed on every {every} computed step, remembered in between"
    return "computed once (exact only for 9B-KV weights)"


def _ordinal(n: int) -> str:
    return {1: "single", 2: "2nd", 3: "3rd"}.get(n, f"{n}th")
