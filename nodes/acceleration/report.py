"""What a run did, step by step: the line an artist reads, and the same as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..base.sentences import Sentence, join, say

COMPUTED = "C"
REUSED = "R"
HALF = "H"


@dataclass(frozen=True)
class StepKind:
    """What a step can be, and how it is shown wherever a run is drawn: chart, strip on the node, tables.

    word: the short one. meaning: the legend's. colour: of the bar's edge and of words. fill: inside; reused
    steps are dim inside and bright at the edge, told apart without colour vision, too.
    """

    word: str
    meaning: str
    colour: str
    fill: str


STEP_KINDS = {
    COMPUTED: StepKind("computed", "computed", "#f0b44c", "#f0b44c"),
    REUSED: StepKind("reused", "reused: an earlier result stood in", "#3fb7a9", "#1d3437"),
    HALF: StepKind("half", "half: prompt computed, guidance reused", "#a98bea", "#4a4265"),
}
LEGEND = ", ".join(f"{letter} {kind.word}" for letter, kind in STEP_KINDS.items())
"""The letters of a pattern, in one line."""


def describe_kinds(pattern: str) -> dict[str, dict[str, str]]:
    """What the page needs to draw a pattern: the kinds in it by their letter."""
    return {letter: asdict(STEP_KINDS[letter]) for letter in dict.fromkeys(pattern)}


@dataclass
class StepRecord:
    """One call of the model. error: relative error of the forecast, known only where the truth was computed
    too.

    work: share of an unaccelerated step (1 = all of it).
    """

    step: int | None
    sigma: float
    kind: str = COMPUTED
    work: float = 1.0
    error: float | None = None
    note: Sentence = Sentence("")


@dataclass
class RunReport:
    """One sampling run. `line()` is for people, `data()` for programs.

    steps: of the run as it was. asked: those it came with, more than steps where fewer took their place; 0
    where that is not told.
    """

    method: str
    steps: int
    records: list[StepRecord] = field(default_factory=list)
    notes: list[Sentence] = field(default_factory=list)
    threshold: float | None = None
    asked: int = 0

    @property
    def shortened(self) -> bool:
        """Fewer steps ran than were asked for."""
        return self.asked > self.steps

    @property
    def pattern(self) -> str:
        return "".join(record.kind for record in self.records)

    @property
    def computed(self) -> int:
        return sum(record.kind != REUSED for record in self.records)

    @property
    def unit(self) -> str:
        """What is counted: steps, or the calls of a solver that makes more than one a step."""
        return "steps" if len(self.records) <= self.steps else "model calls"

    @property
    def speed(self) -> float:
        """Estimated times faster, from the work left out; 1 for a run without calls."""
        work = sum(record.work for record in self.records)
        longer = self.asked / self.steps if self.shortened else 1.0
        return longer * len(self.records) / work if work > 0 else 1.0

    @property
    def largest_error(self) -> float | None:
        """Largest relative error found right after reused steps, where the truth was computed again.

        It is an upper bound of what was used: that forecast reached one step further. Errors elsewhere
        belong to forecasts that nobody used. None where nothing was reused.
        """
        pairs = zip(self.records, self.records[1:], strict=False)
        errors = [now.error for last, now in pairs if last.kind != COMPUTED and now.error is not None]
        return max(errors, default=None)

    def headline(self) -> Sentence:
        """What fits under a node that draws the pattern itself."""
        return join(", ", self._counts())

    def line(self) -> Sentence:
        counted, *others = self._counts()
        parts = [Sentence(f"{self.pattern or '-'}  {counted}"), *others]
        if self.threshold is not None:
            parts.append(say("internal threshold %1", f"{self.threshold:.3f}"))
        return Sentence(f"{self.method}: " + "; ".join([join(", ", parts), *self.notes]))

    def _counts(self) -> list[Sentence]:
        counts = self.computed, len(self.records)
        by_step = counts[1] <= self.steps
        parts = [
            say("%1 of %2 steps computed", *counts)
            if by_step
            else say("%1 of %2 model calls computed", *counts)
        ]
        if self.shortened:
            parts = [say("%1 steps in the place of %2", self.steps, self.asked)]
        if self.speed > 1.005:
            parts.append(say("about %1x faster", f"{self.speed:.2f}"))
        if self.largest_error is not None:
            parts.append(say("largest forecast error %1", f"{100 * self.largest_error:.1f}%"))
        return parts

    def data(self) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON."""
        return {
            "method": self.method,
            "steps": self.steps,
            "asked": self.asked or self.steps,
            "calls": len(self.records),
            "computed": self.computed,
            "pattern": self.pattern,
            "speed": self.speed,
            "largest_error": self.largest_error,
            "threshold": self.threshold,
            "notes": list(self.notes),
            "records": [asdict(record) for record in self.records],
        }


def summarise_runs(runs: Sequence[RunReport], labels: Sequence[str]) -> list[str]:
    """A line a run, with its label ("seed 7"); one for all where they skipped the same steps."""
    if len(runs) == 1:
        return [runs[0].line()]
    if len({(run.pattern, run.method, tuple(run.notes)) for run in runs}) == 1:
        worst = max(runs, key=lambda run: run.largest_error or 0.0)
        return [f"{worst.line()} (all {len(runs)} alike)"]
    return [f"{label}: {run.line()}" for label, run in zip(labels, runs, strict=True)]


def join_reports(reports: Sequence[RunReport]) -> str:
    """The lines of several sampler runs on one accelerated model, or a sentence where there were none."""
    if not reports:
        return "no acceleration: the model is as it came from the loader"
    names = [f"run {i + 1}" for i in range(len(reports))]
    return "\n".join(summarise_runs(reports, names))
