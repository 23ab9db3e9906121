"""Fitted tables: which calls of the model a run can spare, and what to make of those it keeps.

1. Watch: runs with all the calls, of prompts that differ.
2. Choose: the calls whose gaps cost least by the watched velocities' inner products (`acceleration/gram.py`).
3. Fit, in closed loop: all pictures go from call to call together. At each, the weights are a ridge
   regression of the way that is left to the watched run at the next call, on what *these* pictures have seen,
   so that a weight makes up for what the weights before it did wrong. Each picture goes on by weights fitted
   to the others: its error at the end is that of a prompt nobody has seen (leave one out), for nothing.
"""

from __future__ import annotations

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
