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

# After the very first step there is one velocity and no line to draw through two. It is repeated across steps
# that lie no farther apart, in FLUX.2's own time, than this many of the run's mean: across one of 2 (Beta
# sigmas) it turned pictures (on klein-nano DPM++ 2M, high: worst 20.7 dB, else 35).
LONE_STRIDE = 1.5

# Most steps in a row, where neither cacheMaxConsecutiveSteps nor another of the API's options was set.
MAX_IN_A_ROW = 5

# The width of a step says what skipping it moves, not what becomes of that: early errors grow on their way.
# So the weight is flatter, width ** FLAT, which keeps the worst pictures nearer (on klein-nano 1 to 5 dB) for
# less at the median. Another power where the steps lie close together: from this many on, or with at least
# this share of them computed.
FLAT = 0.6
MANY_STEPS, MANY_STEPS_IN_A_ROW = 40, 4
CLOSE_SHARE = 0.5
CLOSE_FLAT = 0.7

# The number of computed steps, and the sigma, at which forecast_error_limit holds as it stands. Below the
# last number it is relaxed no further: on klein-nano the worst pictures of 7 steps of 20 were then no nearer
# to the uncached ones than by as few plain steps.
LIMIT_STEPS, LIMIT_SIGMA = 11, 0.5
LIMIT_FEWEST = 9
# From this guidance on it holds in runs that compute half of their steps, too.
GUARDED_GUIDANCE = 5.0
# The most it can be set to; nothing is held back.
NO_LIMIT = 10.0

# Guidance multiplies what a forecast misses: (guidance, fewest steps a run must compute). Measured on
# klein-nano, 12, 20, 28 and 50 steps: with these its worst pictures stay nearer to the uncached ones than
# Euler's with as few steps do, and as many of them are right; with fewer they do not, or the guard makes them
# compute as many, and less well placed (guidance 4: 7 planned of 28 became 9.4, worst 26.8 dB, 9 planned 9.8
# and 27.5; 8 of 20 became 9.5 and 28.3, 9 of 20 became 9.9 and 30.9).
MIN_COMPUTED = ((2.0, 7), (4.0, 9), (5.0, 9), (6.0, 14), (7.0, 16), (10.0, 18))


# Where the network computes in bfloat16 or float16, its rounding is larger than what the velocity changes by
# from one of the first, narrow steps to the next, and a line drawn through two of them continues the
# rounding. Above this sigma the last velocity is repeated instead (klein-nano in bfloat16, 16 pictures,
# medium: worst 40.8 dB, not 34.0, 5th percentile 43.3, not 39.8; in float32 the line is nearer).
ROUGH_SIGMA = 0.93

# Above this sigma it is decided what a picture becomes. Of what skipped steps did wrong there no more is made
# up for than this share of the velocity, times the guidance, which multiplies both (klein-nano, 24 pictures,
# medium: worst 29.9 dB at guidance 4 and 23.9 at 2 when all of it was; medians 1 to 2 dB higher).
DECIDED_SIGMA = 0.9
SETTLED_PER_GUIDANCE = 0.02

# How far apart in FLUX.2's own time two computed steps may lie for what is between them to be told by how
# alike velocities are (`extrapolation.weigh_by_likeness`): 4 steps of 28, 3 of 20. Up to there that is nearer
# than a parabola in sigma (klein-nano, 28 steps, medium: 58.9 dB and not 57.7, at guidance 2 68.1 and not
# 66.2), beyond it farther (12 steps, every second one computed: 35.3 and not 36.4).
ALIKE_WITHIN = 0.16

# DPM++ 2M SDE bears few steps where none of them is longer than this in the logarithm of sigma. Beta,
# Exponential and Karras sigmas fall by .2 at most; FLUX.2's own end in steps of .3 and more.
SHORT_DROP = 0.25


def min_computed(guidance: float, steps: int) -> int:
    """How many of its steps a run at this guidance has to compute, whatever speed was asked for.

    At moderate guidance half of them are enough, where that is no less than at the least guidance: there the
    plan holds without the guard (`error_limit`).
    """
    (_, least), *_ = MIN_COMPUTED
    fewest = _min_computed_of_many(guidance)
    if guidance < GUARDED_GUIDANCE:
        fewest = min(fewest, max(least, math.ceil(CLOSE_SHARE * steps)))
    return min(steps, fewest)


def _min_computed_of_many(guidance: float) -> int:
    (first, fewest), *_ = MIN_COMPUTED
    if guidance <= first:
        return fewest
    for (low, few), (high, many) in zip(MIN_COMPUTED, MIN_COMPUTED[1:], strict=False):
        if guidance <= high:
            return math.ceil(few + (many - few) * (guidance - low) / (high - low) - 1e-9)
    return MIN_COMPUTED[-1][1]


def width_power(steps: int, computed: int) -> float:
    """To which power a step's width is its weight."""
    close = steps >= MANY_STEPS or computed >= CLOSE_SHARE * steps
    return CLOSE_FLAT if close else FLAT


def error_limit(
    acceleration: Acceleration, sigma: float, computed: int, steps: int, guidance: float
) -> float:
    """How far off, as a share of x, a gap around `sigma` may be expected to end; computed: of `steps`.

    A picture's part of x is 1 - sigma: a miss of 5% is nothing at the end, but half of what there is to see
    at sigma 0.9, where it is decided what the picture becomes. And with fewer steps it may be more, since a
    plain run of as few is off by more as well, in inverse proportion, down to LIMIT_FEWEST.
    """
    limit = acceleration.forecast_error_limit
    # Where half of the steps are computed anyway, the plan alone is nearer than as few plain steps, and each
    # further one brings less than it brings a plain run (klein-nano, 12 steps) but at strong guidance.
    close = computed >= CLOSE_SHARE * steps and guidance < GUARDED_GUIDANCE
    if limit >= NO_LIMIT or (close and limit >= Acceleration().forecast_error_limit):
        return math.inf
    share = (1 - sigma) / (1 - LIMIT_SIGMA)
    return limit * share * LIMIT_STEPS / max(LIMIT_FEWEST, computed)


def requested_speed(acceleration: Acceleration) -> float:
    """How many times fewer steps the forecast is asked to compute."""
    return acceleration.speed or SPEEDS[acceleration.acceleration]


def ordinal(n: int) -> str:
    return {1: "single", 2: "2nd", 3: "3rd"}.get(n, f"{n}th")
