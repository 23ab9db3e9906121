"""Fitted tables: which calls of the model a run can spare, and what to make of those it keeps.

1. Watch: runs with all the calls, of prompts that differ. Of their velocities only the inner products are
   used, `[N, N]` numbers a picture (the Gram matrix): what a sum of velocities misses of another follows.
2. Choose: a gap between two calls costs what the best sum of the two calls before it misses of the run's way
   across. The calls with the least sum of costs are found exactly, by dynamic programming.
3. Fit, in closed loop: all pictures go from call to call together. At each, the weights are a ridge
   regression of the way that is left to the watched run at the next call, on what *these* pictures have seen,
   so that a weight makes up for what the weights before it did wrong. Each picture goes on by weights fitted
   to the others: its error at the end is that of a prompt nobody has seen (leave one out), for nothing.

A fixed budget of calls is BudCache's (arXiv 2606.13496).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..acceleration.fitted import BANDS, Bridge, combine, split_bands

# Velocities a weight may reach back to, the newest among them.
MEMORY = 3
# Pull towards the way that needs no fit, as a share of each column's size.
RIDGE = 0.2
# Longest gap between two calls of a solver, in steps of the watched run.
REACH = 16

Velocity = Callable[[int, Tensor, float], Tensor]
"""(picture, x, sigma) -> velocity."""


def gram_matrix(velocities: Sequence[Tensor]) -> Tensor:
    """Inner products of one run's velocities, `[N, N]` float64, as a share of their mean square."""
    rows = torch.stack([velocity.flatten() for velocity in velocities]).double()
    gram = rows @ rows.T
    return gram / gram.diagonal().mean().clamp_min(1e-30)


def step_rule(sigmas: Sequence[float]) -> Tensor:
    """Weights `[N, N]`: row i times the velocities is the way of step i of an Euler run."""
    levels = torch.tensor(sigmas, dtype=torch.float64)
    return torch.diag(levels.diff())


def trapezoid_rule(sigmas: Sequence[float]) -> Tensor:
    """As `step_rule`, for a run that takes the mean of both ends of a step; the last has one end only."""
    widths = torch.tensor(sigmas, dtype=torch.float64).diff()
    rule = torch.diag(widths / 2) + torch.diag(widths[:-1] / 2, 1)
    rule[-1, -1] = widths[-1]
    return rule


def gap_costs(gram: Tensor, rule: Tensor, reach: int) -> Tensor:
    """What it costs, squared, to go from call a to call b on nothing but velocities a and p.

    Returns `[p + 1, a, b]`, p = 0 for no earlier call, infinite where a gap is impossible or longer than
    `reach`. gram, rule: `[N, N]`; steps count from 0, b = N is the end of the run.
    """
    steps = len(gram)
    costs = torch.full((steps + 1, steps, steps + 1), math.inf, dtype=torch.float64)
    tiny = 1e-9
    size = gram.diagonal() * (1 + tiny)
    for a in range(steps):
        for b in range(a + 1, min(steps, a + reach) + 1):
            way = rule[a:b].sum(0)
            seen = gram @ way
            whole = way @ seen
            costs[0, a, b] = (whole - seen[a] ** 2 / size[a]).clamp_min(0)
            if not a:
                continue
            both = gram[a, :a]
            determinant = (size[a] * size[:a] - both**2).clamp_min(tiny * size[a] * size[:a])
            newest = (seen[a] * size[:a] - seen[:a] * both) / determinant
            before = (seen[:a] * size[a] - seen[a] * both) / determinant
            explained = newest * seen[a] + before * seen[:a]
            costs[1 : a + 1, a, b] = (whole - explained).clamp_min(0)
    return costs


def choose_calls(costs: Tensor, calls: int) -> tuple[int, ...]:
    """The `calls` steps, the first among them, whose gaps cost least in sum; exact."""
    steps = costs.shape[1]
    best = torch.full((steps, steps + 1), math.inf, dtype=torch.float64)
    best[0] = costs[0, 0]
    came_from: list[Tensor] = []
    for _ in range(calls - 1):
        following = torch.full_like(best, math.inf)
        before = torch.zeros(best.shape, dtype=torch.int64)
        for a in range(1, steps):
            # best[p, a]: the least that leads to a with p the call before it.
            following[a], before[a] = (best[:a, a, None] + costs[1 : a + 1, a]).min(0)
        came_from.append(before)
        best = following
    last = int(best[:, steps].argmin())
    chosen, after = [last], steps
    for before in reversed(came_from):
        chosen.append(int(before[chosen[-1], after]))
        after = chosen[-2]
    return tuple(reversed(chosen))


@dataclass(frozen=True)
class FittedWeights:
    """weights: a call's, `[bands][calls]`. ends: x after the run, each picture by weights of the others."""

    weights: tuple[tuple[tuple[float, ...], ...], ...]
    ends: list[Tensor]


def fit_weights(
    starts: Sequence[Tensor],
    wanted: Sequence[Sequence[Tensor]],
    levels: Sequence[float],
    bridges: Sequence[Bridge],
    velocity: Velocity,
    bands: int = BANDS,
) -> FittedWeights:
    """Weights of calls at `levels` (a final 0 among them), fitted in closed loop.

    starts: x of each picture at levels[0]. wanted: for each call, x of each picture at the next level, from
    the watched run. bridges: one a picture, what leads to the next call without a fit.
    """
    now = list(starts)
    calls: list[list[Tensor]] = [[] for _ in starts]
    weights = []
    for call, (sigma, following) in enumerate(zip(levels, levels[1:], strict=False)):
        width = following - sigma
        basis = _basis(min(call + 1, MEMORY))
        systems, parts = [], []
        for picture, x in enumerate(now):
            fresh = velocity(picture, x, sigma)
            calls[picture] = [fresh, *calls[picture]][:MEMORY]
            parts.append([bridges[picture].add(call, fresh), *calls[picture]])
            systems.append(_system(basis, parts[-1], (wanted[call][picture] - x) / width, bands))
        matrices = torch.stack([matrix for matrix, _ in systems])
        sides = torch.stack([side for _, side in systems])
        weights.append(_solve(basis, matrices.sum(0), sides.sum(0)))
        for picture, x in enumerate(now):
            own = weights[-1]
            if len(now) > 1:
                own = _solve(basis, matrices.sum(0) - matrices[picture], sides.sum(0) - sides[picture])
            now[picture] = x + width * combine(own, parts[picture])
    return FittedWeights(tuple(weights), now)


def _basis(known: int) -> Tensor:
    """Columns of the regression, as rows of weights on [the way without a fit, the calls, newest first]: the
    first of these, and what the velocity changed from call to call.
    """
    basis = torch.zeros(known, known + 1, dtype=torch.float64)
    basis[0, 0] = 1
    for i in range(1, known):
        basis[i, i], basis[i, i + 1] = 1, -1
    return basis


def _system(basis: Tensor, parts: Sequence[Tensor], wanted: Tensor, bands: int) -> tuple[Tensor, Tensor]:
    """One picture's part of the normal equations `[bands, k, k]`, `[bands, k]`, of what is still missing."""
    split = [split_bands(part, bands) for part in parts]
    aims = split_bands(wanted, bands)
    matrices, sides = [], []
    for band in range(bands):
        rows = torch.stack([part[band].flatten() for part in split]).double()
        gram, side = rows @ rows.T, rows @ aims[band].flatten().double()
        matrices.append(basis @ gram @ basis.T)
        sides.append(basis @ (side - gram @ basis[0]))
    return torch.stack(matrices), torch.stack(sides)


def _solve(basis: Tensor, matrices: Tensor, sides: Tensor) -> tuple[tuple[float, ...], ...]:
    """Ridge regression of each band: rows of weights."""
    pull = torch.diag_embed(RIDGE * matrices.diagonal(dim1=1, dim2=2) + 1e-20)
    change = torch.linalg.solve(matrices + pull, sides[..., None])[..., 0]
    rows = basis[0] + change @ basis
    return tuple(tuple(float(value) for value in row) for row in rows)


def relative_error(x: Tensor, wanted: Tensor) -> float:
    """How far `x` lies from `wanted`, as a share of it."""
    return float((x.float() - wanted.float()).norm() / wanted.float().norm().clamp_min(1e-20))
