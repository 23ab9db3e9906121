"""Which calls of the model a run can spare, by the inner products of its velocities.

Of a watched run nothing else is used, `[N, N]` numbers (the Gram matrix): what a sum of velocities misses of
another follows. A gap between two calls costs what the best sum of the two calls before it misses of the
run's way across. The calls with the least sum of costs are found exactly, by dynamic programming; the fixed
budget of calls is BudCache's (arXiv 2606.13496).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
