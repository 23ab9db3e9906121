"""Kleinod Fast: a multistep solver for the guided velocity and the sigmas that suit it. No cache at all.

The strongest rival of skipping steps is taking fewer and better ones. Two things make them better:
- every velocity is used three times: for the slope of the next step (second-order Adams-Bashforth), and, once
the next velocity is known, to repair the step just taken (a parabola through three velocities, integrated
exactly, in place of the guess). The repair is a corrector that costs no evaluation.
- the sigmas: FLUX.2's native schedule with few steps jumps from .4 or more to 0. Here the last steps are
those of a schedule of twice the length, and the time saved is taken from the even middle.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# The run is laid out on a native schedule this many times as fine; its last steps are kept as they are.
FINENESS = 2
KEPT_TAIL = 4


def fast_sigmas(steps: int, mu: float, start: float = 1.0) -> Tensor:
    """`steps` sigmas and a final 0, float32 `[steps + 1]`, falling from `start`.

    mu: the native schedule's shift for the picture's size (see `sampling.schedule.compute_mu`). Times fall
    evenly, at the native spacing of FINENESS * steps for the last KEPT_TAIL steps and wider before.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, but a run needs at least 1. Set steps to 8 or more.")
    first = 1 / (1 + math.exp(mu) * (1 / start - 1))
    tail = min(KEPT_TAIL, steps - 1)
    edge = first * tail / (FINENESS * steps)
    body = torch.linspace(first, edge, steps - tail + 1, dtype=torch.float64)
    end = torch.linspace(edge, 0, tail + 1, dtype=torch.float64)
    time = torch.cat([body, end[1:]])
    sigmas = math.exp(mu) / (math.exp(mu) + (1 / time - 1))
    sigmas[0], sigmas[-1] = start, 0.0
    return sigmas.float()


class Multistep:
    """The memory of one run: the last two velocities and the step taken from the last one."""

    def __init__(self) -> None:
        self._points: list[tuple[float, Tensor]] = []
        self._taken: Tensor | None = None

    def advance(self, x: Tensor, sigma: float, following: float, velocity: Tensor) -> Tensor:
        """x at `following`, from x and its fresh velocity at `sigma`."""
        if self._points:
            exact = integrate([*self._points, (sigma, velocity)], self._points[-1][0], sigma)
            x = x + (exact - self._taken)
        self._points = [*self._points[-1:], (sigma, velocity)]
        self._taken = integrate(self._points, sigma, following)
        return x + self._taken


def integrate(points: list[tuple[float, Tensor]], start: float, end: float) -> Tensor:
    """The integral from `start` to `end` of the polynomial through one, two or three `points`."""
    total = torch.zeros_like(points[-1][1])
    for i, (at, value) in enumerate(points):
        others = [other for j, (other, _) in enumerate(points) if j != i]
        total += _lagrange_area(at, others, start, end) * value
    return total


def _lagrange_area(at: float, others: list[float], start: float, end: float) -> float:
    """The integral of Lagrange's basis polynomial that is 1 at `at` and 0 at `others` (none, one or two)."""
    # Measured from `start`, where all differences are small: no digits are lost.
    nodes = [other - start for other in others]
    width, scale = end - start, math.prod(at - other for other in others)
    if not nodes:
        return width
    if len(nodes) == 1:
        return (width**2 / 2 - nodes[0] * width) / scale
    a, b = nodes
    return (width**3 / 3 - (a + b) * width**2 / 2 + a * b * width) / scale


@torch.no_grad()
def sample_fast(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,
) -> Tensor:
    """The solver in the form of ComfyUI's samplers: model(x, sigma `[B]`) -> denoised; x `[B, C, H, W]`."""
    from tqdm.auto import trange

    levels = sigmas.tolist()
    solver = Multistep()
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
