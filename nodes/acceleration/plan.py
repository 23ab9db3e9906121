"""Which steps may be skipped: windows in step numbers, and the budget mask of the forecast.

Steps are counted 0..steps-1 along the sigmas of *this* run, never by ComfyUI's sigma percentages: those
assume a fixed shift that FLUX.2's own schedule does not have (at 2048x2048 "30%" would fall on 50% of the
steps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base.errors import InputError
from ..base.values import Acceleration
from . import presets
from .clock import SURE_FROM


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first step.

    reuse: per step, True where the forecast shall stand in for the network (empty for the other methods).
    window: first step that may be skipped and the first after it that may not. cap: longest run of skipped
    steps.
    """

    steps: int
    method: str
    window: tuple[int, int]
    cap: int
    reuse: tuple[bool, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        return self.method == "none"


def resolve_window(acceleration: Acceleration, steps: int, default: tuple[int, int]) -> tuple[int, int]:
    """The steps `[start, end)` that may be skipped, from whichever form was set, else from `default`.

    Raises ValueError where the window does not fit the number of steps.
    """
    start, end = default
    if acceleration.cache_start_step is not None:
        start = acceleration.cache_start_step
        if start >= steps:
            raise InputError(
                f"cacheStartStep is {start}, but this run has {steps} steps (0 to {steps - 1}). "
                "Choose an earlier start."
            )
    elif acceleration.cache_start_step_percentage is not None:
        start = math.floor(acceleration.cache_start_step_percentage * steps / 100)
    if acceleration.cache_end_step is not None:
        end = acceleration.cache_end_step
        if end > steps:
            raise InputError(
                f"cacheEndStep is {end}, but this run has {steps} steps. Choose {steps} or less, "
                "or use cacheEndStepPercentage, which fits any number of steps."
            )
    elif acceleration.cache_end_step_percentage is not None:
        end = math.ceil(acceleration.cache_end_step_percentage * steps / 100)
    if _has_start(acceleration) and _has_end(acceleration) and start >= end:
        raise InputError(
            f"The cache window starts at step {start} and ends at step {end} of {steps}: nothing lies "
            "in between. Set cacheStartStep before cacheEndStep."
        )
    return min(start, end), end


def _has_start(acceleration: Acceleration) -> bool:
    return acceleration.cache_start_step is not None or acceleration.cache_start_step_percentage is not None


def _has_end(acceleration: Acceleration) -> bool:
    return acceleration.cache_end_step is not None or acceleration.cache_end_step_percentage is not None


def make_plan(acceleration: Acceleration, steps: int) -> Plan:
    """The plan of a run of `steps` steps. A run too short to spare any gets an idle plan that says so."""
    cap = acceleration.cache_max_consecutive_steps
    method = acceleration.method
    if steps < presets.FEWEST_STEPS:
        note = f"{steps} steps are too few to skip any (from {presets.FEWEST_STEPS} on)"
        return Plan(steps, "none", (0, 0), cap, notes=(note,))
    if method == "forecast":
        head, tail = presets.HEAD, presets.TAIL
        window = resolve_window(acceleration, steps, (head, steps - tail))
        # Two computed velocities make a line; the last step has nothing to hand its error to.
        window = (max(window[0], SURE_FROM), min(window[1], steps - 1))
        computed = math.floor(steps / presets.requested_speed(acceleration) + 1e-9)
        profile = acceleration.calibration.profile if acceleration.calibration else ()
        reuse = budget_mask(steps, computed, window, cap, profile or presets.PROFILE)
        notes = ()
        if sum(reuse) < steps - computed:
            reached = steps / (steps - sum(reuse))
            notes = (
                f"asked for {presets.requested_speed(acceleration):.2f}x, the window and "
                f"cacheMaxConsecutiveSteps allow {reached:.2f}x",
            )
        return Plan(steps, method, window, cap, reuse, notes)
    low, high = presets.BLOCK_WINDOW
    default = (math.floor(low * steps / 100), math.ceil(high * steps / 100))
    window = resolve_window(acceleration, steps, default)
    if method == "dual_block":
        cap = min(cap, acceleration.db_cache_skip_interval)
    return Plan(steps, method, (max(window[0], SURE_FROM), window[1]), cap)


def budget_mask(
    steps: int, computed: int, window: tuple[int, int], cap: int, profile: tuple[float, ...]
) -> tuple[bool, ...]:
    """Place `steps - computed` skipped steps where a linear forecast hurts least.

    The j-th step skipped in a row is off by about j (j + 1) / 2 times the local curvature (the remainder of
    linear extrapolation), weighted here by `profile` (equal bins over the run). The sum is minimised exactly
    by dynamic programming over the computed steps, with at most `cap` skipped in a row and none outside
    `window`; the fixed budget follows BudCache (arXiv 2606.13496), which searches a mask for a given number
    of evaluations. Returns per step True where it is skipped; fewer skips where the window or the cap leave
    no room.
    """
    start, end = window
    room = max(0, end - start)
    skips = min(max(0, steps - computed), _most_skips(room, cap))
    if skips == 0:
        return (False,) * steps
    weight = [profile[min(len(profile) - 1, i * len(profile) // steps)] for i in range(steps)]
    # best[p][k]: least cost with step p computed and k skips before it; p counts from the step before the
    # window.
    infinite = math.inf
    positions = room + 2
    best = [[infinite] * (skips + 1) for _ in range(positions)]
    came_from = [[0] * (skips + 1) for _ in range(positions)]
    best[0][0] = 0.0
    for position in range(1, positions):
        for gap in range(0, min(cap, position - 1) + 1):
            first = start + position - gap - 1
            cost = sum(weight[first + j - 1] * j * (j + 1) / 2 for j in range(1, gap + 1))
            for k in range(gap, skips + 1):
                total = best[position - gap - 1][k - gap] + cost
                if total < best[position][k]:
                    best[position][k], came_from[position][k] = total, gap
    reuse = [False] * steps
    position, k = positions - 1, skips
    while position > 0:
        gap = came_from[position][k]
        for j in range(gap):
            reuse[start + position - 2 - j] = True
        position, k = position - gap - 1, k - gap
    return tuple(reuse)


def _most_skips(room: int, cap: int) -> int:
    """Skipped steps that fit into `room` steps with a computed one after every `cap`."""
    return room - room // (cap + 1)
