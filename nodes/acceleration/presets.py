"""The small table behind the words low, medium, high and highest, and where the forecast may skip.

Numbers that a measurement can change; those of the other policies stand in their own files. The speeds are
budgets: the same level computes the same number of steps for every prompt.
"""

from __future__ import annotations

import math

from ..base.values import Acceleration

# Times fewer computed steps. Runware knows the first four words; highest is ours.
SPEEDS = {"none": 1.0, "low": 1.33, "medium": 1.75, "high": 2.5, "highest": 3.1}

# Steps that are always computed, unless a window says otherwise. A second computed step at the very end is
# worth its evaluation (on klein-nano 4 dB at 2.5x).
HEAD = 1
TAIL = 2

# Most steps in a row, where neither cacheMaxConsecutiveSteps nor another of the API's options was set.
MAX_IN_A_ROW = 5

# Where the steps lie close together, from this many on or with at least this share of them computed, their
# widths say less: a flatter weight (width ** FLAT) keeps the worst pictures nearer (on klein-nano 2 to 5 dB).
MANY_STEPS, MANY_STEPS_IN_A_ROW = 40, 4
CLOSE_SHARE = 0.5
FLAT = 0.7

# Guidance multiplies what a forecast misses: (guidance, fewest steps a run must compute). Measured on
# klein-nano, 12, 20, 28 and 50 steps: with these its worst pictures stay nearer to the uncached ones than
# Euler's with as few steps do, and as many of them are right; with fewer they do not.
MIN_COMPUTED = ((4.0, 7), (5.0, 9), (6.0, 14), (7.0, 16), (10.0, 18))


# DPM++ 2M SDE bears few steps where none of them is longer than this in the logarithm of sigma. Beta,
# Exponential and Karras sigmas fall by .2 at most; FLUX.2's own end in steps of .3 and more.
SHORT_DROP = 0.25


def min_computed(guidance: float) -> int:
    """How many steps a run at this guidance has to compute, whatever speed was asked for."""
    (first, fewest), *_ = MIN_COMPUTED
    if guidance <= first:
        return fewest
    for (low, few), (high, many) in zip(MIN_COMPUTED, MIN_COMPUTED[1:], strict=False):
        if guidance <= high:
            return math.ceil(few + (many - few) * (guidance - low) / (high - low) - 1e-9)
    return MIN_COMPUTED[-1][1]


def requested_speed(acceleration: Acceleration) -> float:
    """How many times fewer steps the forecast is asked to compute."""
    return acceleration.speed or SPEEDS[acceleration.acceleration]


def ordinal(n: int) -> str:
    return {1: "single", 2: "2nd", 3: "3rd"}.get(n, f"{n}th")
