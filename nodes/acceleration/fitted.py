"""Fitted tables at work: the mean velocity up to the next call of the model, from the calls made so far.

Klein Calibrate finds the weights (`study/fitting.py`), by watching runs that had all the calls. They are told
apart by frequency, since the coarse parts of a picture settle early and the fine ones late.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..base.acceleration import FAST, SKIPPED, FittedTable
from ..base.sentences import Sentence, say
from .extrapolation import LinearExtrapolation, interpolate
from .linear_solver import LinearSolver, Settlement, euler_solver

# How far a run's sigmas may lie from those a table was fitted on (another size shifts them), and guidance.
SIGMA_TOLERANCE = 0.02
GUIDANCE_TOLERANCE = 0.051
# Where the bands of the cosine transform part, as a share of its highest frequency on both axes.
EDGES = (0.2, 0.45)
BANDS = len(EDGES) + 1


def cosine_basis(size: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II `[size, size]`, a frequency a row, float32 on the device of `like`."""
    at = torch.arange(size, device=like.device, dtype=torch.float32)
    basis = torch.cos(math.pi / size * (at[None] + 0.5) * at[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def split_bands(value: Tensor, bands: int) -> list[Tensor]:
    """`value` `[..., h, w]` in parts that sum up to it, coarse to fine; itself alone where bands is 1."""
    if bands == 1:
        return [value]
    height, width = value.shape[-2:]
    rows, columns = cosine_basis(height, value), cosine_basis(width, value)
    spectrum = rows @ value.float() @ columns.T
    down = torch.arange(height, device=value.device) / height
    right = torch.arange(width, device=value.device) / width
    band = torch.bucketize((down[:, None] ** 2 + right[None] ** 2).sqrt(), torch.tensor(EDGES).to(down))
    return [rows.T @ (spectrum * (band == i)) @ columns for i in range(bands)]


class Bridge(Protocol):
    """What leads from a call of the model to the next without a fit."""

    def add(self, call: int, velocity: Tensor) -> Tensor:
        """Note the velocity of a call; returns the mean velocity that leads to the next."""

    def forget(self) -> None: ...


class RuleBridge:
    """A forecast a gap at a time: the line, its gain, and a parabola that settles past errors.

    The forecast by the rule has come to settle otherwise since; this stays, since the weights of every stored
    table count on it.

    steps: at which the model is called, of an Euler run over `sigmas`.
    """

    def __init__(self, sigmas: Sequence[float], steps: Sequence[int]) -> None:
        self._sigmas = sigmas
        self._steps = (*steps, len(sigmas) - 1)
        self._settlement = Settlement(euler_solver(sigmas))
        self._line = LinearExtrapolation()
        self._guesses: list[tuple[int, float, Tensor]] = []

    def add(self, call: int, velocity: Tensor) -> Tensor:
        here, following = self._steps[call], self._steps[call + 1]
        sigma = self._sigmas[here]
        points = [*self._line.points, (sigma, velocity)]
        used = [(step, at, interpolate(points, at) - guess) for step, at, guess in self._guesses]
        addition = self._settlement.settle(used, here, velocity)
        settled = velocity if addition is None else velocity - addition / sigma
        self._line.add(sigma, velocity)
        between = range(here + 1, following)
        self._guesses = [(step, self._sigmas[step], self._line.at(self._sigmas[step])) for step in between]
        way = (self._sigmas[here + 1] - sigma) * settled
        for step, at, guess in self._guesses:
            way = way + (self._sigmas[step + 1] - at) * guess
        return way / (self._sigmas[following] - sigma)

    def forget(self) -> None:
        self._line = LinearExtrapolation()
        self._guesses = []
        self._settlement.forget()


class TrapezoidBridge:
    """Kleinod Fast's own: the velocity, and half of what it changed since the last call, made good."""

    def __init__(self, levels: Sequence[float]) -> None:
        self._levels = levels
        self._before: Tensor | None = None

    def add(self, call: int, velocity: Tensor) -> Tensor:
        before, self._before = self._before, velocity
        if before is None:
            return velocity
        width = self._levels[call + 1] - self._levels[call]
        repair = (self._levels[call] - self._levels[call - 1]) / (2 * width)
        return velocity + repair * (velocity - before)

    def forget(self) -> None:
        self._before = None


def make_bridge(
    kind: str, sigmas: Sequence[float], computed: Sequence[int], levels: Sequence[float]
) -> Bridge:
    """What a table of this kind is fitted on top of."""
    return TrapezoidBridge(levels) if kind == FAST else RuleBridge(sigmas, computed)


class FittedPath:
    """One run by a table. Tensors `[B, C, h, w]` in float32."""

    def __init__(self, table: FittedTable) -> None:
        self._call_at = {step: call for call, step in enumerate(table.computed)}
        self._weights = table.weights
        self._bridge = make_bridge(table.kind, table.sigmas, table.computed, table.levels)
        self._longest = max(len(row) for bands in table.weights for row in bands) - 1
        self._calls: list[Tensor] = []
        self.mean: Tensor | None = None

    def add(self, step: int, velocity: Tensor) -> Tensor:
        """Note the velocity computed at `step`; returns `mean`, the velocity that leads to the next call.

        Without the calls before it, which something in mid-run made worthless, it is what needs no fit; at a
        step the table knows nothing of, the velocity itself.
        """
        call = self._call_at.get(step)
        if call is None:
            self.forget()
            self.mean = velocity
            return velocity
        unfitted = self._bridge.add(call, velocity)
        self._calls = [velocity, *self._calls][: self._longest]
        bands = self._weights[call]
        if any(len(row) > 1 + len(self._calls) for row in bands):
            self.mean = unfitted
        else:
            self.mean = combine(bands, [unfitted, *self._calls])
        return self.mean

    def forget(self) -> None:
        self._calls = []
        self._bridge.forget()
        self.mean = None


def combine(bands: Sequence[Sequence[float]], parts: Sequence[Tensor]) -> Tensor:
    """The sum of `parts` with a row of weights for each band."""
    mixed = [
        sum((weight * part for weight, part in zip(row, parts, strict=False)), torch.zeros_like(parts[0]))
        for row in bands
    ]
    if len(mixed) == 1:
        return mixed[0]
    return sum((split_bands(part, len(mixed))[i] for i, part in enumerate(mixed)), torch.zeros_like(parts[0]))


def tell_errors(table: FittedTable) -> tuple[Sentence, Sentence]:
    """How far off it is on prompts it was not fitted to, and what runs without it on the same."""
    own, plain = (
        say("%1 off (worst %2)", f"{100 * statistics.median(errors):.1f}%", f"{100 * max(errors):.1f}%")
        for errors in (table.errors, table.rule_errors)
    )
    return own, plain


def find_table(
    tables: Iterable[FittedTable], kind: str, sigmas: Sequence[float], guidance: float, calls: int
) -> FittedTable | None:
    """The table fitted for such a run; None where there is none. Of several Klein Calibrate's, which ran
    what it tells of, and of these the one that gains most.
    """
    fitting = [
        table
        for table in tables
        if table.kind == kind
        and table.calls == calls
        and len(table.sigmas) == len(sigmas)
        and abs(table.guidance - guidance) < GUIDANCE_TOLERANCE
        and max(abs(a - b) for a, b in zip(table.sigmas, sigmas, strict=True)) <= SIGMA_TOLERANCE
    ]
    return max(fitting, key=lambda table: (not table.learned_from, table.gain), default=None)


def find_mask(
    tables: Iterable[FittedTable],
    sigmas: Sequence[float],
    guidance: float,
    calls: int,
    solver: LinearSolver | None,
) -> FittedTable | None:
    """The table for skipping steps of a run by Euler; no other solver goes where its weights lead."""
    if solver is None or solver != euler_solver(sigmas):
        return None
    return find_table(tables, SKIPPED, sigmas, guidance, calls)


def find_fast(tables: Iterable[FittedTable], sigmas: Sequence[float], guidance: float) -> FittedTable | None:
    """The table that stands in for Kleinod Fast on its own `sigmas`."""
    return find_table(tables, FAST, sigmas, guidance, len(sigmas) - 1)
