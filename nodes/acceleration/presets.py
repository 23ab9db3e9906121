"""The small table behind the words low, medium and high, and behind thresholds between 0 and 1.

Everything here is a number that a measurement can change; no other module holds one of that kind.
The speeds are budgets: the same level computes the same number of steps for every prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.values import HIGHER_REUSES_MORE, Acceleration
from .signals import Curve

# Times fewer computed steps, Runware's four words. Measured on klein-nano (28 steps, guidance 4, 24 pictures,
# `run.py bench acceleration`), median PSNR to the uncached picture: low 72 dB, medium 59, high 46; Euler with
# as few calls 47, 41, 35. Above about 2.6x, and with guidance reuse on top, fewer steps of Kleinod Fast win.
SPEEDS = {"none": 1.0, "low": 1.33, "medium": 1.75, "high": 2.4}

# A run this short has no steps to spare (distilled models: 4 steps); it is never accelerated.
FEWEST_STEPS = 8

# Steps at the start and at the end that are always computed by the forecast, unless a window says otherwise.
HEAD = 4
TAIL = 2

# Window of the three block methods where the user set none, in percent of the steps.
BLOCK_WINDOW = (30, 95)

# Relative harm of a skipped step along the run (equal bins, mean about 1). It grows because FLUX.2's steps
# do: late ones are ten times as wide in sigma, so the same miss moves the picture further. Of six shapes
# tried on klein-nano (prompts apart from the bench's) the steepest was best at every speed; this one is a
# little flatter, since on real Klein the first steps carry more (the head is computed anyway).
PROFILE = (0.30, 0.38, 0.47, 0.59, 0.73, 0.92, 1.15, 1.43, 1.79, 2.24)

# Block methods that carry the residual on along its slope over sigma instead of repeating it.
EXTRAPOLATING = ("dual_block",)

# teaCache: change of block 0's modulated input -> change of the velocity, with no constant term. Fitted on
# klein base 4B with guidance by the mlx-teacache project (R^2 .106: a weak signal, see the help page).
TEA_CURVE = Curve(
    (-1841.022165607874, 848.4417137572868, -131.3554469956159, 8.179509586828413, 0.0), limit=0.2
)


@dataclass(frozen=True)
class ThresholdScale:
    """A dial of 0..1 -> the relative change the method compares with: `limit * dial ** power`; 0 is never."""

    limit: float
    power: float

    def resolve(self, dial: float) -> float:
        return self.limit * dial**self.power


SCALES = {
    "first_block": ThresholdScale(limit=0.5, power=1.5),
    "dual_block": ThresholdScale(limit=0.5, power=1.5),
    "tea": ThresholdScale(limit=1.0, power=1.5),
    "tea spectral": ThresholdScale(limit=1.0, power=1.5),
}


def requested_speed(acceleration: Acceleration) -> float:
    """How many times fewer steps the forecast is asked to compute."""
    return acceleration.speed or SPEEDS[acceleration.acceleration]


def resolved_threshold(acceleration: Acceleration) -> float:
    """The number the method really compares with: 0 for the forecast and for a threshold of 0."""
    method = acceleration.method
    if method == "tea":
        scale = SCALES["tea spectral" if acceleration.tea_signal == "spectral" else "tea"]
        return scale.resolve(acceleration.tea_cache_distance)
    dial = {
        "first_block": acceleration.fb_cache_threshold,
        "dual_block": acceleration.db_cache_threshold,
    }.get(method)
    if not dial:
        return 0.0
    return SCALES[method].resolve(dial if acceleration.threshold_meaning == HIGHER_REUSES_MORE else 1 - dial)


def is_off(acceleration: Acceleration | None) -> bool:
    """True where nothing at all would be skipped, so that the model can stay the very object it is."""
    if acceleration is None:
        return True
    extras = (
        acceleration.guidance_interval > 1
        or acceleration.guidance_end_percentage < 100
        or acceleration.reference_cache != "off"
    )
    if extras:
        return False
    if acceleration.method == "forecast":
        return requested_speed(acceleration) <= 1
    return acceleration.method == "none" or resolved_threshold(acceleration) <= 0
