"""What plain runs of the user's own teach acceleration: which steps to compute.

A run without acceleration shows where its velocities bend. Kept of it are inner products (`gram.py`), of the
noise it began from and of its velocities: in coordinates that have these products, acceleration can be run
over again on other steps, by its own code. What that cannot tell is how the network would have answered on a
picture that is a little off. So a choice of steps counts as better only where it is nearer at the end on
prompts it was not chosen by, as in Klein Calibrate, *and* nowhere on the way farther off than the rule's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..base.acceleration import SKIPPED, FittedTable
from ..base.errors import InputError
from ..base.sentences import Sentence, join, say
from ..base.values import Acceleration
from . import presets
from .controller import Controller
from .fitted import tell_errors
from .gram import choose_calls, gap_costs, gram_matrix, step_rule
from .linear_solver import euler_solver
from .plan import budget_mask, list_strides, step_weights
from .policies.forecast import make_plan
from .policies.policy import RunFacts

# Numbers kept of a velocity while its run goes on; shorter ones are kept as they are.
SKETCH = 16384
# Steps of a run that can teach.
FEWEST_STEPS, MOST_STEPS = 8, 64
# Different prompts from which on steps are chosen, and after how many more again.
FEWEST_PROMPTS = 4
# What is kept: prompts of one kind of run, and kinds of run. The oldest go first.
MOST_PROMPTS, MOST_KINDS = 8, 16
# Levels whose steps are chosen; low computes so many that there is nothing to gain.
LEVELS = ("medium", "high", "highest")
# Powers of a step's width that are tried beside what the inner products say.
POWERS = (0.4, 0.5, 0.7, 0.8, 1.0)
# The share of x below which an error on the way is rounding, and how far one may pass the rule's.
NEGLIGIBLE = 1e-4
DIGITS = 10
VERSION = 1


class Sketcher:
    """Tensors of any size in at most `SKETCH` numbers that keep their inner products.

    Entries are shuffled, given random signs and summed up in buckets (Charikar, Chen and Farach-Colton's
    count sketch, one row of it). It is linear, so sums and differences are kept as well as the tensors are:
    an inner product <a, b> is off by at most sqrt(2 / SKETCH) |a| |b|, 1.1%, in one standard deviation.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._order: Tensor | None = None
        if count > SKETCH:
            generator = torch.Generator().manual_seed(count)
            self._order = torch.randperm(count, generator=generator).to(device)
            self._rows = -(-count // SKETCH)
            signs = torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8)
            self._signs = (2 * signs - 1).to(device)

    def sketch(self, value: Tensor) -> Tensor:
        """Of one picture's numbers, in any shape, float32 on the device of `value`."""
        flat = value.detach().float().flatten()
        if self._order is None:
            return flat.clone()
        signed = flat[self._order] * self._signs
        padded = torch.nn.functional.pad(signed, (0, self._rows * SKETCH - len(signed)))
        return padded.reshape(self._rows, SKETCH).sum(0)


class Recorder:
    """Watches one run by what its solver shows after every step. Holds a sketch a step, on the device."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = list(sigmas)
        self._sketcher: Sketcher | None = None
        self._rows: list[Tensor] = []

    def note(self, step: int, x: Tensor, denoised: Tensor) -> None:
        """x, denoised: `[B, ...]`, what the model was given at `step` and said. The first picture counts.

        Raises ValueError where it is not the step that follows.
        """
        if step != max(0, len(self._rows) - 1) or step >= len(self._sigmas) - 1:
            raise ValueError(f"step {step} follows {len(self._rows) - 2}")
        x, denoised = x[:1].float(), denoised[:1].float()
        if self._sketcher is None:
            self._sketcher = Sketcher(x.numel(), x.device)
            self._rows.append(self._sketcher.sketch(x))
        self._rows.append(self._sketcher.sketch((x - denoised.to(x.device)) / self._sigmas[step]))

    def read_gram(self) -> Tensor | None:
        """Inner products `[N + 1, N + 1]` float64 of the noise and the velocities, as a share of the
        velocities' mean square; None where the run was not whole or not finite.
        """
        if len(self._rows) != len(self._sigmas):
            return None
        gram = gram_matrix(torch.stack(self._rows).cpu().unbind())
        gram = gram / gram.diagonal()[1:].mean().clamp_min(1e-30)
        return gram if bool(torch.isfinite(gram).all()) else None


def name_prompt(conditioning: Iterable[Any], salt: str) -> str:
    """Four hex digits that differ between prompts: enough to count them, too few to find one by.

    conditioning: ComfyUI's, pairs of a tensor `[B, tokens, width]` and more. salt: this installation's own.
    """
    digest = hashlib.sha256(salt.encode())
    for tensor, *_ in conditioning:
        digest.update(tensor.detach().float().mean(-1).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:4]


@dataclass(frozen=True)
class Kind:
    """Runs that teach the same. rough: the network computes in less than float32. mu: as in `RunFacts`."""

    model: str
    guidance: float
    sigmas: tuple[float, ...]
    rough: bool = False
    mu: float | None = None

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def file_name(self) -> str:
        """Alike for runs of one kind, the model's fingerprint first."""
        levels = [round(sigma, 3) for sigma in self.sigmas]
        digest = hashlib.sha256(repr((round(self.guidance, 2), levels, self.rough, self.mu)).encode())
        return f"{self.model}-{digest.hexdigest()[:12]}.json"

    def describe(self) -> Sentence:
        return join(", ", [say("%1 steps", self.steps), say("guidance %1", f"{self.guidance:g}")])


@dataclass(frozen=True)
class Tried:
    """Steps chosen for a level. steady: nowhere on the way farther off than the rule's."""

    table: FittedTable
    steady: bool

    @property
    def wins(self) -> bool:
        return self.steady and self.table.wins

    def describe(self) -> Sentence:
        way = say("%1 of %2 steps", self.table.calls, self.table.steps)
        if not self.wins:
            runs = len(self.table.errors)
            return say("%1: nothing better than the rule was found in %2 runs.", way, runs)
        own, rule = tell_errors(self.table)
        return say("%1: %2 and by the rule %3, so these steps are used.", way, own, rule)


@dataclass(frozen=True)
class Lessons:
    """All that runs of one kind taught. grams: by prompt, the oldest first. seen: prompts that ever came."""

    kind: Kind
    grams: dict[str, Tensor] = field(default_factory=dict)
    seen: int = 0
    tried: tuple[Tried, ...] = ()

    @property
    def tables(self) -> tuple[FittedTable, ...]:
        return tuple(one.table for one in self.tried if one.wins)

    def add(self, prompt: str, gram: Tensor) -> Lessons:
        """With one more run; the very same where its prompt has taught."""
        if prompt in self.grams:
            return self
        grams = {**self.grams, prompt: gram}
        while len(grams) > MOST_PROMPTS:
            grams.pop(next(iter(grams)))
        return replace(self, grams=grams, seen=self.seen + 1)

    @property
    def due(self) -> bool:
        """Whether steps are to be chosen now: `choose_steps`, a second or so of one core."""
        return self.seen > 0 and self.seen % FEWEST_PROMPTS == 0

    def describe(self) -> Sentence:
        """For the list in the settings."""
        model = say("model %1", self.kind.model[:6])
        lines = [say("%1 different prompts (%2)", self.seen, join(", ", [self.kind.describe(), model]))]
        if not self.tried:
            lines.append(say("Steps are chosen from %1 different prompts on.", FEWEST_PROMPTS))
        return join("\n", [*lines, *(one.describe() for one in self.tried)])

    def data(self) -> dict[str, Any]:
        kind = self.kind
        return {
            "version": VERSION,
            "model": kind.model,
            "guidance": kind.guidance,
            "sigmas": list(kind.sigmas),
            "rough": kind.rough,
            "mu": kind.mu,
            "seen": self.seen,
            "grams": {prompt: _pack(gram) for prompt, gram in self.grams.items()},
            "tried": [
                {
                    "computed": list(one.table.computed),
                    "errors": list(one.table.errors),
                    "rule_errors": list(one.table.rule_errors),
                    "from": one.table.learned_from,
                    "steady": one.steady,
                }
                for one in self.tried
            ],
        }


def read_lessons(data: Any) -> Lessons:
    """What `Lessons.data` wrote. Damage raises ValueError, KeyError, TypeError or AttributeError."""
    if data["version"] != VERSION:
        raise ValueError(f"its version is {data['version']}")
    levels = tuple(float(sigma) for sigma in data["sigmas"])
    mu = None if data["mu"] is None else float(data["mu"])
    kind = Kind(str(data["model"]), float(data["guidance"]), levels, bool(data["rough"]), mu)
    grams = {str(prompt): _unpack(values, kind.steps + 1) for prompt, values in data["grams"].items()}
    tried = tuple(
        Tried(
            _make_table(
                kind,
                tuple(map(int, one["computed"])),
                tuple(map(float, one["errors"])),
                tuple(map(float, one["rule_errors"])),
                int(one["from"]),
            ),
            bool(one["steady"]),
        )
        for one in data["tried"]
    )
    return Lessons(kind, grams, int(data["seen"]), tried)


def _pack(gram: Tensor) -> list[float]:
    """The lower triangle, row by row."""
    return [float(f"{value:.{DIGITS}g}") for i, row in enumerate(gram.tolist()) for value in row[: i + 1]]


def _unpack(values: Sequence[float], size: int) -> Tensor:
    if len(values) != size * (size + 1) // 2:
        raise ValueError(f"it has {len(values)} numbers a run")
    rows, columns = torch.tril_indices(size, size)
    gram = torch.zeros(size, size, dtype=torch.float64)
    gram[rows, columns] = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if not torch.isfinite(gram).all():
        raise ValueError("its numbers are not finite")
    return gram + gram.tril(-1).T


def tell_count(lessons: Lessons, new: bool) -> Sentence:
    """For the report of a plain run. new: it taught something."""
    if not new:
        return say("Learning is on: this prompt has taught already what it can.")
    return say(
        "Learning is on: this run taught, as different prompt number %1 of its kind "
        "(steps are chosen after every %2).",
        lessons.seen,
        FEWEST_PROMPTS,
    )


def choose_steps(lessons: Lessons) -> Lessons:
    """With steps for each level: what brings all prompts nearest, judged on each as chosen without it."""
    kind, grams = lessons.kind, list(lessons.grams.values())
    rows = torch.stack([_coordinates(gram) for gram in grams])
    tried: list[Tried] = []
    for level in LEVELS:
        plan = make_plan(_unguarded(level), _facts(kind))
        if plan.computed >= kind.steps or any(one.table.calls == plan.computed for one in tried):
            continue
        tried.append(_choose_for(kind, plan.computed, level, grams, rows))
    return replace(lessons, tried=tuple(tried))


def _choose_for(kind: Kind, calls: int, level: str, grams: list[Tensor], rows: Tensor) -> Tried:
    ruled = _errors_of(kind, level, rows, ())
    widths = _by_widths(kind, calls)
    known: dict[tuple[int, ...], Tensor] = {}

    def errors_of(computed: tuple[int, ...]) -> Tensor:
        if computed not in known:
            table = _make_table(kind, computed, (0.0,), (0.0,), len(grams))
            known[computed] = _errors_of(kind, level, rows, (table,))
        return known[computed]

    def choose(others: list[int]) -> tuple[int, ...]:
        candidates = {*widths, _by_products(kind, calls, [grams[i] for i in others])}
        return min(sorted(candidates), key=lambda one: _worth(errors_of(one), ruled, others))

    unseen = torch.stack(
        [errors_of(choose([i for i in range(len(grams)) if i != left]))[left] for left in range(len(grams))]
    )
    table = _make_table(
        kind,
        choose(list(range(len(grams)))),
        tuple(round(value, 6) for value in unseen[:, -1].tolist()),
        tuple(round(value, 6) for value in ruled[:, -1].tolist()),
        len(grams),
    )
    return Tried(table, is_steady(unseen, ruled))


def _by_products(kind: Kind, calls: int, grams: list[Tensor]) -> tuple[int, ...]:
    summed = torch.stack(grams).sum(0)[1:, 1:]
    return choose_calls(gap_costs(summed, step_rule(kind.sigmas), presets.MAX_IN_A_ROW + 1), calls)


def _by_widths(kind: Kind, calls: int) -> list[tuple[int, ...]]:
    window = (presets.HEAD, kind.steps - presets.TAIL)
    strides = list_strides(kind.sigmas, kind.mu)
    masks = [
        budget_mask(calls, window, presets.MAX_IN_A_ROW, step_weights(kind.sigmas, power), strides)
        for power in POWERS
    ]
    chosen = [tuple(step for step, skipped in enumerate(mask) if not skipped) for mask in masks]
    return [one for one in chosen if len(one) == calls]


def _worth(errors: Tensor, ruled: Tensor, prompts: list[int]) -> tuple[bool, float]:
    """The less the better: steady ones first, then by how much nearer they end."""
    mine, theirs = errors[prompts], ruled[prompts]
    ratios = (mine[:, -1] + NEGLIGIBLE) / (theirs[:, -1] + NEGLIGIBLE)
    return not is_steady(mine, theirs), float(ratios.log().mean())


def is_steady(errors: Tensor, ruled: Tensor) -> bool:
    """Whether the farthest that any prompt has been off, up to each step, is no more than by the rule."""
    mine, theirs = (value.cummax(1).values.amax(0) for value in (errors, ruled))
    return bool((mine <= theirs + NEGLIGIBLE).all())


def _errors_of(kind: Kind, level: str, rows: Tensor, tables: tuple[FittedTable, ...]) -> Tensor:
    """How far off every prompt is after each step, `[prompts, N]`, as a share of its picture at the end.

    rows: `[prompts, N + 1, N + 1]`, of each the noise and the velocities in coordinates. The velocities are
    those of the plain run, whatever was skipped before.
    """
    controller = Controller(_unguarded(level), _facts(kind, tables))
    start, velocities = rows[:, 0, :, None, None].float(), rows[:, 1:, :, None, None].float()
    x, plain = start, start
    off = []
    for step, (sigma, following) in enumerate(zip(kind.sigmas, kind.sigmas[1:], strict=False)):
        at = controller.read_sigma(torch.tensor([sigma]))
        if controller.begin(at, 0):
            denoised = controller.forecast(x)
        else:
            denoised = controller.learn(x, x - sigma * velocities[:, step])
        x = x + (following - sigma) / sigma * (x - denoised)
        plain = plain + (following - sigma) * velocities[:, step]
        off.append((x - plain).flatten(1).norm(dim=1))
    controller.forget()
    return torch.stack(off, 1).double() / plain.flatten(1).norm(dim=1, keepdim=True).clamp_min(1e-20)


def _coordinates(gram: Tensor) -> Tensor:
    """Vectors, a row each, that have these inner products."""
    values, directions = torch.linalg.eigh(gram)
    return directions * values.clamp_min(0).sqrt()


def _unguarded(level: str) -> Acceleration:
    """At equal work."""
    return Acceleration(level, forecast_error_limit=presets.NO_LIMIT)


def _facts(kind: Kind, tables: tuple[FittedTable, ...] = ()) -> RunFacts:
    return RunFacts(
        kind.sigmas,
        solver=euler_solver(kind.sigmas),
        regular=True,
        guidance=kind.guidance,
        rough=kind.rough,
        mu=kind.mu,
        fingerprint=kind.model,
        tables=tables,
    )


def _make_table(
    kind: Kind,
    computed: tuple[int, ...],
    errors: tuple[float, ...],
    rule_errors: tuple[float, ...],
    learned_from: int,
) -> FittedTable:
    """Chosen steps as a table. Its weights say: as the rule does."""
    if learned_from < 1 or not all(math.isfinite(value) for value in kind.sigmas):
        raise InputError(say("one of its tables does not hold together"))
    return FittedTable(
        kind=SKIPPED,
        model=kind.model,
        guidance=kind.guidance,
        sigmas=kind.sigmas,
        computed=computed,
        levels=(*(kind.sigmas[step] for step in computed), 0.0),
        weights=(((1.0,),),) * len(computed),
        errors=errors,
        rule_errors=rule_errors,
        learned_from=learned_from,
    )
