"""What a run did, step by step: the line an artist reads, and the same as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

COMPUTED = "C"
REUSED = "R"
HALF = "H"

MEANINGS = {
    COMPUTED: "computed",
    REUSED: "reused",
    HALF: "computed for the prompt only, guidance reused",
}


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
    note: str = ""


@dataclass
class RunReport:
    """One sampling run. `line()` is for people, `data()` for programs."""

    method: str
    steps: int
    records: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    threshold: float | None = None

    @property
    def pattern(self) -> str:
        return "".join(record.kind for record in self.records)

    @property
    def computed(self) -> int:
        return sum(record.kind != REUSED for record in self.records)

    @property
    def speed(self) -> float:
        """Estimated times faster, from the work left out; 1 for a run without calls."""
        work = sum(record.work for record in self.records)
        return len(self.records) / work if work > 0 else 1.0

    @property
    def largest_error(self) -> float | None:
        """Largest forecast error seen from the first reused step on; None where nothing was reused."""
        kinds = [record.kind for record in self.records]
        if REUSED not in kinds and HALF not in kinds:
            return None
        first = min(kinds.index(kind) for kind in (REUSED, HALF) if kind in kinds)
        errors = [record.error for record in self.records[first:] if record.error is not None]
        return max(errors, default=None)

    def line(self) -> str:
        parts = [f"{self.pattern or '-'}  {self.computed} of {len(self.records)} steps computed"]
        if self.speed > 1.005:
            parts.append(f"about {self.speed:.2f}x faster")
        if self.largest_error is not None:
            parts.append(f"largest forecast error {100 * self.largest_error:.1f}%")
        if self.threshold is not None:
            parts.append(f"internal threshold {self.threshold:.3f}")
        return f"{self.method}: " + ", ".join(parts + self.notes)

    def data(self) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON."""
        return {
            "method": self.method,
            "steps": self.steps,
            "calls": len(self.records),
            "computed": self.computed,
            "pattern": self.pattern,
            "speed": self.speed,
            "largest_error": self.largest_error,
            "threshold": self.threshold,
            "notes": list(self.notes),
            "records": [asdict(record) for record in self.records],
        }


def join_reports(reports: Sequence[RunReport]) -> str:
    """One line a run, numbered where there were several (two samplers on one accelerated model)."""
    if len(reports) == 1:
        return reports[0].line()
    return "\n".join(f"run {i + 1}: {report.line()}" for i, report in enumerate(reports))
