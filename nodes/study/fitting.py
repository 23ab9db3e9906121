"""What Klein Calibrate finds in the runs it watched, and what it tells of it.

Tea's curve: from the change of the first block's modulated input between two steps to the change of the
velocity (TeaCache, arXiv 2411.19108; least squares without a constant, since no change of input must mean no
change of output). Which steps to skip and how to bridge them is `tables.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..acceleration.fitted import tell_errors
from ..base.acceleration import FAST, FittedTable
from ..base.errors import InputError
from ..base.sentences import Sentence, join, say

# Powers of the curve. A cubic follows TeaCache's published ones as far as their data reach.
POWERS = (3, 2, 1)
MIN_STEPS = 8


@dataclass
class Trace:
    """One uncached run, step by step.

    change, signal: of the velocity and of Tea's input, relative L1 to the step before; None at the first.
    path: x as the model was given it at each step, in main memory; velocities: what came out, `[B, C, h, w]`.
    """

    sigmas: list[float] = field(default_factory=list)
    change: list[float | None] = field(default_factory=list)
    signal: list[float | None] = field(default_factory=list)
    path: list[Tensor] = field(default_factory=list)
    velocities: list[Tensor] = field(default_factory=list)

    def add(self, sigma: float, x: Tensor, velocity: Tensor, signal: float | None) -> None:
        """Note a step. x, velocity `[B, C, h, w]` float32."""
        change = None
        if self.velocities:
            before = self.velocities[-1]
            change = float((velocity.cpu() - before).abs().mean() / before.abs().mean().clamp_min(1e-20))
        self.sigmas.append(sigma)
        self.change.append(change)
        self.signal.append(signal)
        self.path.append(x.cpu())
        self.velocities.append(velocity.cpu())


def check_steps(steps: int) -> None:
    """Raises InputError where a run is too short to say anything."""
    if steps < MIN_STEPS:
        raise InputError(
            say(
                "steps is %1, but Klein Calibrate needs at least %2 to see how a run goes. "
                "Use the number of steps you paint with, such as 28.",
                steps,
                MIN_STEPS,
            )
        )


def describe(
    name: str,
    prompts: int,
    asked: str,
    tried: Sequence[FittedTable],
    explained: float,
    notes: Sequence[Sentence],
) -> Sentence:
    """Lines for an artist. tried: all tables that were fitted, of which those that win are kept."""
    kept = [table for table in tried if table.wins]
    lines = [say("Saved as '%1', from %2 prompts, %3.", name, prompts, asked)]
    lines += [describe_table(table) for table in tried]
    if kept:
        lines.append(say("It is used by itself wherever this very model runs with these steps and guidance."))
    trust = say("good") if explained > 0.7 else say("fair") if explained > 0.4 else say("weak")
    share = f"{100 * explained:.0f}%"
    lines.append(say("Tea's signal explains %1 of the change; as a guide here it is %2.", share, trust))
    return join("\n", [*lines, *notes])


def describe_table(table: FittedTable) -> Sentence:
    """How far off it is on prompts it was not fitted to, beside what runs without it."""
    other = Sentence(FAST) if table.kind == FAST else say("the rule")
    way = say("%1 of %2 steps", table.calls, table.steps)
    if table.kind == FAST:
        way = say("%1 with %2 steps", FAST, table.calls)
    fitted, plain = tell_errors(table)
    verdict = say("%1 dB, the fit is used", f"{table.gain:+.1f}") if table.wins else say("%1 stays", other)
    return say("%1: on prompts it was not fitted to %2, by %3 %4: %5.", way, fitted, other, plain, verdict)


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
