"""Forecast of what the network would say, from what it said before: linear in sigma, damped by its own
record.

State is the velocity after guidance, v = (x - x0) / sigma, as in MeanCache (arXiv 2601.19961), so nothing
here knows about branches, batching or blocks. At every computed step the forecast that would have been used
is compared with the truth, which gives three things for nothing: how far to trust the slope (gain), whether
to forecast the velocity or the denoised picture (noise-adding samplers change v at once, but not x0), and the
error shown to the user.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# A slope may overshoot by half; it may never turn round.
MAX_GAIN = 1.5
# Below this sigma (x - x0) / sigma is rounding noise.
MIN_SIGMA = 1e-6

# In FLUX.2's own time (`base.noise.unshift_sigma`) what two velocities of a run that lie t apart have in
# common, beside what all have, falls as exp(-t^2 / (2 LENGTH^2)), wherever in the run they lie. Read off 24
# uncached runs of klein-nano at 28 steps; .12 or .2 does as well. JITTER keeps the equations solvable where
# velocities lie next to each other; their weights are a parabola's there.
LENGTH, JITTER = 0.15, 1e-12


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """`[B]` -> `[B, 1, 1, ...]` with as many dimensions as `like`."""
    return value.reshape(-1, *([1] * (like.dim() - 1)))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each sample, `[B]`, in float32."""
    wide = a.float()
    return (wide * (wide if b is a else b.float())).flatten(1).sum(1)


@dataclass
class LinearExtrapolation:
    """A line through the last two values `[B, ...]` over sigma, with a gain per sample on its slope.

    slope False: no line, just the last value again.
    """

    slope: bool = True
    points: list[tuple[float, Tensor]] = field(default_factory=list)
    gain: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points)

    def at(self, sigma: float) -> Tensor:
        """The value expected at `sigma`; the last one as it is while there is no slope."""
        base, step = self._base_and_step(sigma)
        if step is None:
            return base
        return base + (step if self.gain is None else per_sample(self.gain, step).to(step.dtype) * step)

    def add(self, sigma: float, value: Tensor) -> Tensor | None:
        """Learn a computed value. Returns the relative L2 error `[B]` the line would have made, None without
        one.
        """
        error = None
        if self.points:
            miss = self.at(sigma) - value
            error = (inner(miss, miss) / inner(value, value).clamp_min(1e-20)).sqrt()
            base, step = self._base_and_step(sigma)
            if step is not None:
                gain = inner(value - base, step) / inner(step, step).clamp_min(1e-20)
                self.gain = gain.clamp(0.0, MAX_GAIN)
        self.points = [*(self.points[-1:] if self.slope else []), (sigma, value)]
        return error

    @property
    def shape(self) -> torch.Size | None:
        return self.points[-1][1].shape if self.points else None

    def _base_and_step(self, sigma: float) -> tuple[Tensor, Tensor | None]:
        last_sigma, last = self.points[-1]
        if len(self.points) < 2 or self.points[0][0] == last_sigma:
            return last, None
        before_sigma, before = self.points[0]
        return last, (last - before) * ((sigma - last_sigma) / (last_sigma - before_sigma))


class VelocityForecast:
    """Forecasts the velocity at a sigma.

    x, velocity: `[B, C, H, W]` (any shape with the batch first). sigma: noise level, 1 = noise. line_below:
    the sigma above which there is no line, just the last velocity again.
    """

    def __init__(self, line_below: float = math.inf) -> None:
        self._line_below = line_below
        self._prefer_denoised: Tensor | None = None
        self.forget()

    @property
    def known(self) -> int:
        """How many computed values back the forecast: 0, 1 (repeat) or 2 (line)."""
        return len(self._velocity)

    @property
    def points(self) -> list[tuple[float, Tensor]]:
        """(sigma, velocity) of the last computed steps, the newest last."""
        return self._velocity.points

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """The velocity expected at `x`, `sigma`. Needs at least one computed value."""
        if sigma > self._line_below:
            return self.points[-1][1]
        velocity = self._velocity.at(sigma)
        if self._prefer_denoised is None:
            return velocity
        other = (x - self._denoised.at(sigma)) / sigma
        return torch.where(per_sample(self._prefer_denoised, x), other, velocity)

    def observe(self, x: Tensor, sigma: float, velocity: Tensor) -> Tensor | None:
        """Learn a computed velocity. Returns the error `[B]` that forecasting it would have made, None
        without a past.

        The error is told as a share of the picture: how far the miss, kept up since the last computed step,
        would have carried x, relative to x. (Relative to the velocity it would say little: a velocity that
        jitters by half between two sigmas moves the picture by next to nothing where they lie close.)
        """
        since, last = self.points[-1] if self.points else (sigma, velocity)
        error = self._velocity.add(sigma, velocity)
        other = self._denoised.add(sigma, x - sigma * velocity)
        if error is None or other is None:
            return None
        # The denoised picture's error, told in units of the velocity: v = (x - x0) / sigma.
        x0 = x - sigma * velocity
        size = inner(velocity, velocity)
        scale = (inner(x0, x0) / size.clamp_min(1e-20)).sqrt() / sigma
        other = other * scale
        used = error if self._prefer_denoised is None else torch.where(self._prefer_denoised, other, error)
        self._prefer_denoised = other < error
        if sigma > self._line_below:
            miss = last - velocity
            used = (inner(miss, miss) / size.clamp_min(1e-20)).sqrt()
        return used * abs(sigma - since) * (size / inner(x, x).clamp_min(1e-20)).sqrt()

    def forget(self) -> None:
        """Drop everything: the next values have nothing to do with the last ones."""
        self._velocity = LinearExtrapolation()
        self._denoised = LinearExtrapolation()
        self._prefer_denoised = None


def weigh_by_likeness(times: Sequence[float], at: float) -> list[float]:
    """How much of each velocity known at `times` makes the likeliest one at `at`, all in FLUX.2's own time.

    The mean of a Gaussian process around a level that is not known, which statisticians of the ground call
    ordinary kriging (Rasmussen and Williams 2006, section 2.7; Matheron 1963). The weights add up to 1, so
    that of a velocity that never changes it makes that velocity.
    """
    known = torch.tensor(times, dtype=torch.float64)
    count = len(known)
    # The last row and column: weights that add up to 1, and the multiplier that makes them.
    system = torch.ones(count + 1, count + 1, dtype=torch.float64)
    system[:count, :count] = _likeness(known[:, None] - known) + JITTER * torch.eye(count)
    system[count, count] = 0
    wanted = torch.ones(count + 1, dtype=torch.float64)
    wanted[:count] = _likeness(known - at)
    weights: list[float] = torch.linalg.solve(system, wanted)[:count].tolist()
    return weights


def _likeness(apart: Tensor) -> Tensor:
    return torch.exp(-(apart**2) / (2 * LENGTH**2))


def interpolate(points: list[tuple[float, Tensor]], sigma: float) -> Tensor:
    """Lagrange's polynomial through `points` (distinct sigmas), at `sigma`."""
    total = torch.zeros_like(points[-1][1])
    for i, (at, value) in enumerate(points):
        weight = 1.0
        for j, (other, _) in enumerate(points):
            if i != j:
                weight *= (sigma - other) / (at - other)
        total += weight * value
    return total
