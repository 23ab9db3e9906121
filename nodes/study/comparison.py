"""What Klein Compare runs, what it measured, and the table that tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..acceleration.policies.forecast import plan_usual_run
from ..acceleration.report import LEGEND
from ..base.errors import InputError
from ..base.flux2 import DEFAULT_GUIDANCE
from ..base.sentences import Sentence, join, say
from ..base.values import ACCELERATION_LEVELS, Acceleration
from .plot import Point

UNCACHED = "every step"
OURS, FEWER, FAST, CORE, OWN = "acceleration", "fewer steps", "Kleinod Fast", "EasyCache", "your settings"
LEVELS = tuple(level for level in ACCELERATION_LEVELS if level != "none")


@dataclass(frozen=True)
class Candidate:
    """One run. steps and scheduler as in Klein Sampler; core_threshold: with ComfyUI's EasyCache, at this."""

    name: str
    family: str
    steps: int
    scheduler: str = "Default"
    acceleration: Acceleration | None = None
    core_threshold: float | None = None


@dataclass(frozen=True)
class Outcome:
    """A candidate's picture IMAGE `[1, H, W, 3]`, its cost, and its likeness to the first outcome's picture.

    work: share of the uncached run's work. pattern: what was computed and reused, where that is known.
    errors: of its forecasts, as shares of the picture, in the order in which they were found. notes: what
    the run said.
    """

    candidate: Candidate
    image: Tensor
    seconds: float
    work: float
    psnr: float
    ssim: float
    pattern: str = ""
    errors: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def list_candidates(
    steps: int,
    presets: bool = True,
    fewer_steps: bool = True,
    fast: bool = True,
    core: bool = True,
    own: Acceleration | None = None,
    guidance: float = DEFAULT_GUIDANCE,
) -> list[Candidate]:
    """The uncached run first, then what was chosen. Fewer steps cost what medium, high and highest cost.

    Levels that strong guidance lowers to the same steps are one run. Raises InputError where nothing was
    chosen.
    """
    plans = {level: plan_usual_run(Acceleration(level), steps, guidance) for level in LEVELS}
    counts = {level: plan.computed for level, plan in plans.items()}
    chosen: list[Candidate] = []
    if own is not None:
        chosen.append(Candidate("your settings", OWN, steps, acceleration=own))
    if presets:
        alike: dict[str, list[str]] = {}
        for level, plan in plans.items():
            alike.setdefault(plan.pattern, []).append(level)
        chosen += [
            Candidate(", ".join(levels), OURS, steps, acceleration=Acceleration(levels[-1]))
            for levels in alike.values()
        ]
    if fewer_steps:
        fewer = sorted({counts[level] for level in LEVELS[1:]} - {steps}, reverse=True)
        chosen += [Candidate(f"only {count} steps", FEWER, count) for count in fewer]
    if fast:
        half = max(1, steps // 2)
        for count in sorted({half, min(half, counts["highest"])}, reverse=True):
            chosen.append(Candidate(f"Kleinod Fast, {count} steps", FAST, count, "Kleinod Fast"))
    if core:
        chosen.append(Candidate("EasyCache 0.2", CORE, steps, core_threshold=0.2))
    if not chosen:
        raise InputError(
            say(
                "There is nothing to compare: presets, fewer_steps, "
                "kleinod_fast and easycache are all off and acceleration_settings is not connected. "
                "Switch on at least one."
            )
        )
    return [Candidate(UNCACHED, UNCACHED, steps), *chosen]


def format_table(outcomes: Sequence[Outcome]) -> str:
    """Aligned lines: name, seconds, times faster by the clock and by the work, PSNR and SSIM, pattern."""
    head = ("", "time", "faster", "less work", "PSNR", "SSIM", f"steps ({LEGEND})")
    rows = [head] + [_cells(outcome, outcomes[0]) for outcome in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, len(head) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def data(outcomes: Sequence[Outcome], request: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """JSON of a few hundred bytes a run that can be posted as it is: no pictures, no prompts, no paths.

    request: size, steps, guidance and the like. machine: what it ran on.
    """
    runs = [
        {
            "name": outcome.candidate.name,
            "steps": outcome.candidate.steps,
            "scheduler": outcome.candidate.scheduler,
            "seconds": round(outcome.seconds, 3),
            "work": round(outcome.work, 4),
            "psnr": None if outcome is outcomes[0] else round(outcome.psnr, 2),
            "ssim": None if outcome is outcomes[0] else round(outcome.ssim, 5),
            "pattern": outcome.pattern,
            **({"errors": [round(error, 4) for error in outcome.errors]} if outcome.errors else {}),
            **({"notes": list(outcome.notes)} if outcome.notes else {}),
        }
        for outcome in outcomes
    ]
    return json.dumps({"compare": 1, "request": dict(request), "machine": dict(machine), "runs": runs})


def headline(outcomes: Sequence[Outcome]) -> Sentence:
    """What fits under the node: the run nearest to the first picture, and the one that did least."""
    nearest = max(outcomes[1:], key=lambda outcome: outcome.psnr)
    cheapest = min(outcomes[1:], key=lambda outcome: outcome.work)
    words = [say("%1 pictures of one seed", len(outcomes)), say("nearest: %1", _brief(nearest))]
    if cheapest is not nearest:
        words.append(say("fastest: %1", _brief(cheapest)))
    return join("\n", words)


def _brief(outcome: Outcome) -> Sentence:
    less = say("%1x less work", f"{1 / max(outcome.work, 1e-9):.1f}")
    return join(", ", [Sentence(outcome.candidate.name), Sentence(f"{outcome.psnr:.1f} dB"), less])


def _cells(outcome: Outcome, first: Outcome) -> tuple[str, ...]:
    alike = outcome is first
    return (
        outcome.candidate.name,
        f"{outcome.seconds:.2f} s",
        f"{first.seconds / max(outcome.seconds, 1e-9):.2f}x",
        f"{1 / max(outcome.work, 1e-9):.2f}x",
        "-" if alike else f"{outcome.psnr:.1f} dB",
        "-" if alike else f"{outcome.ssim:.4f}",
        outcome.pattern,
    )


def plot_points(outcomes: Sequence[Outcome]) -> list[Point]:
    """The outcomes but the first as points: times less work against PSNR."""
    return [
        Point(1 / max(outcome.work, 1e-9), outcome.psnr, outcome.candidate.family, outcome.candidate.name)
        for outcome in outcomes[1:]
    ]
