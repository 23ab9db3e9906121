"""Fits what the caches assume about a model to what that model does, and keeps it as a small JSON file.

Two things are fitted on uncached runs. The difficulty profile: how far a linear forecast of each step from
the two before it would have moved the picture (what `plan.budget_mask` weighs). And Tea's curve: from the
change of the first block's modulated input between two steps to the change of the velocity (TeaCache, arXiv
2411.19108; least squares without a constant, since no change of input must mean no change of output).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..base.errors import InputError
from ..base.values import Calibration

# Powers of the curve. A cubic follows TeaCache's published ones as far as their data reach.
POWERS = (3, 2, 1)
# No part of the run may look free: one seed's luck must not attract every skip.
MIN_SHARE = 0.1


@dataclass
class Trace:
    """One uncached run, step by step.

    change, signal: of the velocity and of Tea's input, relative L1 to the step before; None at the first.
    miss: L2 of a linear forecast's error as a share of x, per unit of sigma; None at the first two.
    """

    sigmas: list[float] = field(default_factory=list)
    change: list[float | None] = field(default_factory=list)
    signal: list[float | None] = field(default_factory=list)
    miss: list[float | None] = field(default_factory=list)
    _last: list[tuple[float, Tensor]] = field(default_factory=list)

    def add(self, sigma: float, x: Tensor, velocity: Tensor, signal: float | None) -> None:
        """Note a step. x, velocity `[B, C, h, w]` float32."""
        change = miss = None
        if self._last:
            before = self._last[-1][1]
            change = float((velocity - before).abs().mean() / before.abs().mean().clamp_min(1e-20))
        if len(self._last) == 2:
            (s0, v0), (s1, v1) = self._last
            expected = v1 + (v1 - v0) * ((sigma - s1) / (s1 - s0))
            miss = float((velocity - expected).norm() / x.norm().clamp_min(1e-20))
        self.sigmas.append(sigma)
        self.change.append(change)
        self.signal.append(signal)
        self.miss.append(miss)
        self._last = [*self._last[-1:], (sigma, velocity)]


@dataclass(frozen=True)
class Fit:
    """How well the fit explains the runs. explained: R squared of Tea's curve, 1 is all."""

    runs: int
    steps: int
    explained: float

    def data(self) -> dict[str, float]:
        """What is kept beside the fit."""
        return {"pictures": self.runs, "steps": self.steps, "explained": round(self.explained, 4)}

    def describe(self, value: Calibration) -> str:
        """Lines for an artist."""
        tenths = [value.profile[i * len(value.profile) // 10] for i in range(10)]
        bars = " ".join(f"{weight:.2f}" for weight in tenths)
        trust = "a good" if self.explained > 0.7 else "a fair" if self.explained > 0.4 else "a weak"
        return "\n".join(
            [
                f"Saved as '{value.name}', from {self.runs} pictures of {self.steps} steps.",
                f"Harm of a skipped step, at every tenth of the run (1 is average): {bars}",
                f"Tea's signal explains {100 * self.explained:.0f}% of the change: {trust} guide here.",
                "Choose it as calibration in Klein Acceleration.",
            ]
        )


def fit(name: str, traces: Sequence[Trace]) -> tuple[Calibration, Fit]:
    """Profile and curve of all `traces`, which have equally many steps.

    Raises InputError where the runs are too short to say anything.
    """
    steps = len(traces[0].sigmas) if traces else 0
    if steps < 8:
        raise InputError(
            f"steps is {steps}, but Klein Calibrate needs at least 8 to see how a run goes. Use the number "
            "of steps you paint with, such as 28."
        )
    coefficients, limit, explained = fit_curve(
        [value for trace in traces for value in trace.signal], [v for trace in traces for v in trace.change]
    )
    value = Calibration(name, coefficients, limit, fit_profile(traces))
    return value, Fit(len(traces), steps, explained)


def fit_profile(traces: Sequence[Trace]) -> tuple[float, ...]:
    """A weight for each step, mean 1: its miss times its width in sigma, averaged over runs."""
    steps = len(traces[0].sigmas)
    harm = torch.zeros(steps)
    for trace in traces:
        edges = [*trace.sigmas, 0.0]
        harm += torch.tensor(
            [(miss or 0.0) * abs(edges[i] - edges[i + 1]) for i, miss in enumerate(trace.miss)]
        )
    harm[:2] = harm[2]  # the first two steps have no forecast to miss
    weights = harm / harm.mean().clamp_min(1e-20)
    weights = weights.clamp_min(MIN_SHARE)
    return tuple(round(float(weight), 4) for weight in weights / weights.mean())


def fit_curve(
    signals: Sequence[float | None], changes: Sequence[float | None]
) -> tuple[tuple[float, ...], float, float]:
    """(coefficients, highest power first, 0 for the constant), limit of trust, and R squared.

    No coefficients where there is no signal to fit.
    """
    pairs = [(s, c) for s, c in zip(signals, changes, strict=True) if s is not None and c is not None]
    if len(pairs) < 2 * len(POWERS):
        return (), 0.2, 0.0
    x, y = torch.tensor(pairs, dtype=torch.float64).T
    limit = float(x.max())
    # Scaled to 0..1: the powers of a small number lose their digits otherwise.
    columns = torch.stack([(x / limit) ** power for power in POWERS], dim=1)
    solution = torch.linalg.lstsq(columns, y[:, None], driver="gelsd").solution[:, 0]
    spread = ((y - y.mean()) ** 2).sum().clamp_min(1e-20)
    explained = 1 - float(((columns @ solution - y) ** 2).sum() / spread)
    scaled = [float(value) / limit**power for value, power in zip(solution, POWERS, strict=True)]
    return (*scaled, 0.0), limit, max(0.0, explained)
