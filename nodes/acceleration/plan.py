"""Which steps may be skipped: windows in step numbers, and the budget mask of the forecast.

Steps are counted 0..steps-1 along the sigmas of *this* run, never by ComfyUI's sigma percentages: those
assume a fixed shift that FLUX.2's own schedule does not have (at 2048x2048 "30%" would fall on 50% of the
steps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..base.errors import InputError
from ..base.noise import unshift_sigma
from ..base.sentences import say
from ..base.values import Acceleration


def resolve_window(acceleration: Acceleration, steps: int, default: tuple[int, int]) -> tuple[int, int]:
    """The steps `[start, end)` that may be skipped, from whichever form was set, else from `default`.

    Raises InputError where the window does not fit the number of steps.
    """
    start, end = default
    if acceleration.cache_start_step is not None:
        start = acceleration.cache_start_step
        if start >= steps:
            raise InputError(
                say(
                    "cacheStartStep is %1, but this run has %2 steps (0 to %3). Choose an earlier start.",
                    start,
                    steps,
                    steps - 1,
                )
            )
    elif acceleration.cache_start_step_percentage is not None:
        start = math.floor(acceleration.cache_start_step_percentage * steps / 100)
    if acceleration.cache_end_step is not None:
        end = acceleration.cache_end_step
        if end > steps:
            raise InputError(
                say(
                    "cacheEndStep is %1, but this run has %2 steps. Choose %2 or less, "
                    "or use cacheEndStepPercentage, which fits any number of steps.",
                    end,
                    steps,
                )
            )
    elif acceleration.cache_end_step_percentage is not None:
        end = math.ceil(acceleration.cache_end_step_percentage * steps / 100)
    if _has_start(acceleration) and _has_end(acceleration) and start >= end:
        raise InputError(
            say(
                "The cache window starts at step %1 and ends at step %2 of %3: nothing lies "
                "in between. Set cacheStartStep before cacheEndStep.",
                start,
                end,
                steps,
            )
        )
    return min(start, end), end


def _has_start(acceleration: Acceleration) -> bool:
    return acceleration.cache_start_step is not None or acceleration.cache_start_step_percentage is not None


def _has_end(acceleration: Acceleration) -> bool:
    return acceleration.cache_end_step is not None or acceleration.cache_end_step_percentage is not None


@dataclass(frozen=True)
class Reach:
    """How far a row of skipped steps lies from the last computed one, and how far off, in the local
    curvature, a line drawn there is.
    """

    distance: float = 0.0
    error: float = 0.0

    def to(self, stride: float) -> Reach:
        """One step further, which lies by `stride` after the one before."""
        distance = self.distance + stride
        return Reach(distance, self.error + stride * distance)


def budget_mask(
    computed: int,
    window: tuple[int, int],
    cap: int,
    weights: Sequence[float],
    strides: Sequence[float] = (),
    lone: int | None = None,
) -> tuple[bool, ...]:
    """Place skipped steps, all but `computed`, where they hurt least.

    weights: one a step. strides: how far each step lies from the one before it, 1 where not given. lone: most
    steps skipped after the very first, where there is one velocity only and no line to draw. The j-th
    step skipped in a row is off by its `Reach` times the local curvature, with strides of 1 by j (j + 1) / 2
    (the remainder of linear extrapolation), times its weight. The sum is minimised exactly by dynamic
    programming over the computed steps, with at most `cap` skipped in a row and none outside `window`; the
    fixed budget follows BudCache (arXiv 2606.13496), which searches a mask for a given number of evaluations.
    Returns per step True where it is skipped; fewer skips where the window or the cap leave no room.
    """
    steps = len(weights)
    strides = strides or [1.0] * steps
    start, end = window
    first_cap = cap if lone is None or start > 1 else min(cap, lone)
    room = max(0, end - start)
    skips = min(max(0, steps - computed), _most_skips(room, cap))
    if skips == 0:
        return (False,) * steps
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
            if first == start and gap > first_cap:
                continue
            reach, cost = Reach(), 0.0
            for skipped in range(first, first + gap):
                reach = reach.to(strides[skipped])
                cost += weights[skipped] * reach.error
            for k in range(gap, skips + 1):
                total = best[position - gap - 1][k - gap] + cost
                if total < best[position][k]:
                    best[position][k], came_from[position][k] = total, gap
    reuse = [False] * steps
    while best[-1][skips] == infinite:
        skips -= 1
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


def shorten_sigmas(sigmas: Sequence[float], steps: int) -> list[float]:
    """The same schedule in fewer steps: as many sigmas and the last, at even distances along the old ones."""
    whole = len(sigmas) - 1
    levels = []
    for i in range(steps + 1):
        at = i * whole / steps
        below = min(int(at), whole - 1)
        levels.append(sigmas[below] + (at - below) * (sigmas[below + 1] - sigmas[below]))
    return levels


def longest_drop(sigmas: Sequence[float]) -> float:
    """The largest step of a schedule in the logarithm of sigma, the last one, to 0, apart."""
    levels = [sigma for sigma in sigmas if sigma > 0]
    return max((math.log(a / b) for a, b in zip(levels, levels[1:], strict=False)), default=0.0)


def step_weights(sigmas: Sequence[float], power: float = 1.0) -> list[float]:
    """The harm of skipping each step: its own width in sigma, which is how far a wrong velocity moves the
    picture; mean 1. power: below 1 flattens it.
    """
    widths = [abs(after - before) ** power for before, after in zip(sigmas, sigmas[1:], strict=False)]
    mean = sum(widths) / len(widths)
    return [width / mean if mean else 1.0 for width in widths]


def list_strides(sigmas: Sequence[float], mu: float | None) -> list[float]:
    """How far each step lies from the one before it, in the time of FLUX.2's own schedule shifted by `mu`;
    mean 1, and 1 for each where there is none before, or without mu.

    In that time the velocity changes evenly, so FLUX.2's own steps lie equally far apart. Karras, Exponential
    and Beta sigmas fall from 1 to .9 in a tenth of its steps.
    """
    steps = len(sigmas) - 1
    if mu is None or steps < 2 or not 0 < min(sigmas[:-1]) <= max(sigmas) <= 1.001:
        return [1.0] * steps
    times = [unshift_sigma(sigma, mu) for sigma in sigmas[:-1]]
    apart = [abs(before - after) for before, after in zip(times, times[1:], strict=False)]
    mean = sum(apart) / len(apart)
    return [1.0, *(round(one / mean, 3) if mean else 1.0 for one in apart)]
