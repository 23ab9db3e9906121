"""What a deterministic solver does with the denoised pictures it is given, as numbers.

Euler, DPM++ 2M, UniPC and the other multistep solvers are linear: the picture after step i is

    x[i+1] = carry[i] * x[i] + sum over l <= i of weight[i][l] * denoised[l]

with numbers that follow from the sigmas alone. Whoever knows them can undo, at a computed step, what wrong
denoised pictures did at the skipped ones before it, without knowing the solver (`settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .clock import TOLERANCE

# Weights of older pictures below this share of the newest one's are rounding noise.
NEGLIGIBLE = 1e-4
# No solver at hand remembers more; an unstable reading of one would be cut here.
MAX_MEMORY = 4


@dataclass(frozen=True)
class LinearSolver:
    """carry[i], and weights[i]: (l, weight) of the denoised pictures that step i uses, the newest last."""

    carry: tuple[float, ...]
    weights: tuple[tuple[tuple[int, float], ...], ...]


def euler_solver(sigmas: Sequence[float]) -> LinearSolver:
    """x moves by (next sigma - sigma) * (x - denoised) / sigma."""
    ratios = [after / before if before else 0.0 for before, after in zip(sigmas, sigmas[1:], strict=False)]
    return LinearSolver(tuple(ratios), tuple(((i, 1 - ratio),) for i, ratio in enumerate(ratios)))


def probe_solver(
    run: Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor], Tensor], sigmas: Sequence[float]
) -> LinearSolver | None:
    """Read the numbers off a solver by running it once on unit vectors: a few hundred multiplications.

    run: (model, x, sigmas) -> x, where model takes (x, sigma `[1]`). None where the solver calls the model
    otherwise than once a step, adds noise, or is not of this form.
    """
    steps = len(sigmas) - 1
    levels = torch.tensor(list(sigmas), dtype=torch.float32)
    units = torch.eye(steps + 1)[:, None, :, None, None]
    seen: list[Tensor] = []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        i = len(seen)
        if i >= steps or abs(float(sigma.flatten()[0]) - sigmas[i]) > TOLERANCE:
            raise _OtherwiseCalledError
        seen.append(x.flatten().clone())
        return units[i + 1].clone()

    try:
        last = run(model, units[0].clone(), levels.clone())
    except _OtherwiseCalledError:
        return None
    if len(seen) != steps:
        return None
    states = [*seen, last.flatten()]
    carry, weights = [], []
    for i in range(steps):
        if float(states[i][i + 1 :].abs().max()) > NEGLIGIBLE or not float(states[i][0]):
            return None  # noise was added, or the start is forgotten
        ratio = float(states[i + 1][0] / states[i][0])
        row = (states[i + 1] - ratio * states[i])[1 : i + 2].tolist()
        least = NEGLIGIBLE * max(abs(value) for value in row)
        kept = [(at, value) for at, value in enumerate(row) if abs(value) > least][-MAX_MEMORY:]
        if not kept or kept[-1][0] != i:
            return None
        carry.append(ratio)
        weights.append(tuple(kept))
    return LinearSolver(tuple(carry), tuple(weights))


class _OtherwiseCalledError(Exception):
    pass


class Settlement:
    """Keeps account of what skipped steps did wrong, and says what to add to a computed denoised picture so
    that the solver makes up for it.

    Tensors are `[B, ...]` as the denoised pictures are. Wanted: what each denoised picture should have had
    added, had the truth been known; given: what was really added.
    """

    def __init__(self, solver: LinearSolver) -> None:
        self._solver = solver
        self._wanted: dict[int, Tensor] = {}
        self._given: dict[int, Tensor] = {}

    def settle(self, skipped: Sequence[tuple[int, float, Tensor]], index: int, like: Tensor) -> Tensor | None:
        """What to add to the denoised picture of the computed step `index`; None where nothing is open.

        skipped: (step, sigma, error of the velocity used there, right minus used) since the last computed
        step.
        """
        if not skipped and not self._wanted:
            return None
        off = torch.zeros_like(like)
        for step, sigma, error in skipped:
            self._wanted[step] = off - sigma * error
            off = self._solver.carry[step] * off + self._sum(step, self._open(step))
        self._wanted[index] = off
        wanted = self._solver.carry[index] * off + self._sum(index, self._open(index))
        newest = self._solver.weights[index][-1][1]
        addition = wanted / newest
        self._given[index] = addition
        oldest = min((at for at, _ in self._solver.weights[min(index + 1, len(self._solver.weights) - 1)]))
        for account in (self._wanted, self._given):
            for at in [at for at in account if at < oldest]:
                del account[at]
        return addition

    def forget(self) -> None:
        self._wanted = {}
        self._given = {}

    def _open(self, step: int) -> dict[int, Tensor]:
        """Wanted less given, of every denoised picture step `step` uses."""
        left = {}
        for at, _ in self._solver.weights[step]:
            wanted, given = self._wanted.get(at), self._given.get(at)
            if wanted is not None:
                left[at] = wanted if given is None else wanted - given
        return left

    def _sum(self, step: int, tensors: dict[int, Tensor]) -> Tensor:
        weights = dict(self._solver.weights[step])
        total = torch.zeros(())
        for at, tensor in tensors.items():
            total = total + weights[at] * tensor
        return total
