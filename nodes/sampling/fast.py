"""Kleinod Fast: a solver that uses every velocity twice, and the sigmas that suit it. No cache at all.

The strongest rival of skipping steps is taking fewer and better ones. Two things make them better:
- every velocity is used twice: for an Euler step, and, once the next velocity is known, to repair the step
just taken (the mean of both in place of the first, the trapezoid rule). The repair costs no evaluation, and
makes the run second order. It looks back only, and counts as far as the velocity goes on changing the way it
did before: a change that turns round is jitter. Solvers that extrapolate (Adams-Bashforth, DPM++ 2M, the
parabola this module once had) are better still on smooth flows; on a trained network with guidance, whose
velocity jitters from sigma to sigma, they amplify the jitter until pictures flip (`run.py bench
acceleration` measures it). With many steps it counts for less (`repair_share`).
- the sigmas: FLUX.2's native schedule with few steps jumps from .4 or more to 0. Here the last steps are
those of a schedule of twice the length, and the time saved is taken from the even middle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..acceleration.extrapolation import inner, per_sample
from ..acceleration.fitted import FittedPath
from ..base.acceleration import FittedTable
from ..base.sentences import Sentence, say

# With fewer steps, or from this guidance on, the repair makes the worst pictures worse (klein-nano, 8 to 20
# steps, guidance 1 to 10): without it the run is Euler's on the same sigmas, and nearer than on FLUX.2's own.
MIN_STEPS = 10
MAX_GUIDANCE = 5.0
# Of a run's first repair, before which nothing says whether the velocity goes on changing that way.
FIRST_SHARE = 0.5
# (steps, how much of each repair counts), a line in between.
FULL, HALF = (14, 1.0), (20, 0.5)


def is_good(steps: int, guidance: float) -> bool:
    """Whether a run of so many steps at this guidance is better with the repair than without."""
    return steps >= MIN_STEPS and guidance < MAX_GUIDANCE


def repair_share(steps: int) -> float:
    """How much of each repair counts in a run of so many steps.

    Euler's picture of n steps is off from the true one in inverse proportion to n, all in one direction, and
    the 28 plain steps that people compare with lie on that way. With few steps a whole repair comes nearest
    to both; with 20 it goes past those 28 and ends farther from them than 20 plain steps do, most at guidance
    1, where nothing else is off. Half a repair stays nearer than plain steps to both.
    """
    (few, most), (many, least) = FULL, HALF
    return min(most, max(least, most - (most - least) * (steps - few) / (many - few)))


def why_plain(steps: int, guidance: float) -> Sentence:
    """Why such a run steps as Euler does; empty where it does not."""
    if is_good(steps, guidance):
        return Sentence("")
    few = guidance < MAX_GUIDANCE
    reason = say("With %1 steps", steps) if few else say("At guidance %1", f"{guidance:g}")
    return say(
        "%1 using each answer twice would make Kleinod Fast's worst pictures worse, so it stepped as Euler "
        "does, on its own sigmas. It is at its best from %2 steps on and below guidance %3; else Default "
        "with acceleration is nearer.",
        reason,
        MIN_STEPS,
        f"{MAX_GUIDANCE:g}",
    )


class Multistep:
    """The memory of one run: the last velocity and the sigma it belongs to. share: how much of each repair
    counts; 0 is Euler's method.

    damped: each repair counts by the cosine between the velocity's change and the one before it as well, per
    sample `[B]`: 1 on a smooth path, 0 where it turns round. The first, with nothing before it, counts half.
    """

    def __init__(self, share: float = 1.0, damped: bool = True) -> None:
        self._weight = share
        self._damped = damped
        self._last: tuple[float, Tensor] | None = None
        self._change: Tensor | None = None

    def advance(self, x: Tensor, sigma: float, following: float, velocity: Tensor) -> Tensor:
        """x at `following`, from x and its fresh velocity at `sigma`."""
        if self._last is not None and self._weight:
            before, earlier = self._last
            change = velocity - earlier
            x = x + (sigma - before) / 2 * self._share(change) * change
            self._change = change
        self._last = (sigma, velocity)
        return x + (following - sigma) * velocity

    def _share(self, change: Tensor) -> Tensor | float:
        """How much of a repair counts, `[B, 1, ...]`."""
        if not self._damped:
            return self._weight
        if self._change is None:
            return FIRST_SHARE * self._weight
        sizes = (inner(change, change) * inner(self._change, self._change)).sqrt()
        cosine = inner(change, self._change) / sizes.clamp_min(1e-20)
        return per_sample(cosine.clamp(0.0, 1.0) * self._weight, change).to(change.dtype)


class FittedMultistep:
    """The memory of one run by what Klein Calibrate fitted to the model, at the table's own sigmas."""

    def __init__(self, table: FittedTable) -> None:
        self._path = FittedPath(table)
        self._call = 0

    def advance(self, x: Tensor, sigma: float, following: float, velocity: Tensor) -> Tensor:
        """As Multistep's."""
        mean = self._path.add(self._call, velocity.float())
        self._call += 1
        return (x.float() + (following - sigma) * mean).to(x.dtype)


@torch.no_grad()
def sample_fast(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
    table: FittedTable | None = None,
    tell: Callable[[Sentence], None] | None = None,
    whole: bool = False,
) -> Tensor:
    """The solver in the form of ComfyUI's samplers: model(x, sigma `[B]`) -> denoised; x `[B, C, H, W]`.

    Where `is_good` says no it repairs nothing. table: what was fitted for these very sigmas, at whatever
    guidance. tell: is told why nothing was repaired. whole: repair every step in full, whatever the run.
    """
    from tqdm.auto import trange

    levels = sigmas.tolist()
    steps, guidance = len(levels) - 1, float(getattr(getattr(model, "inner_model", None), "cfg", 1.0))
    why = Sentence("") if table is not None or whole else why_plain(steps, guidance)
    share = 1.0 if whole else 0.0 if why else repair_share(steps)
    solver = FittedMultistep(table) if table is not None else Multistep(share, damped=not whole)
    if why and tell is not None and callback is not None:
        tell(why)
    rows = x.new_ones([x.shape[0]])
    for i in trange(len(levels) - 1, disable=disable):
        sigma = levels[i]
        denoised = model(x, sigmas[i] * rows, **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        if levels[i + 1] == 0 and len(levels) == 2:
            return denoised
        x = solver.advance(x, sigma, levels[i + 1], (x - denoised) / sigma)
    return x
