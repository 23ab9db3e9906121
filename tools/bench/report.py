"""The rows every benchmark returns, their table, and their JSON form.

`{"bench": NAME, "machine": {...}, "rows": [{"name", "value", "unit", "spread", "n", "goal", "met"}]}`
"""

from __future__ import annotations

import json
import math
import operator
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}


@dataclass(frozen=True)
class Row:
    """One measured number.

    `spread`: half the range that holds the middle half of the `n` repetitions, in `unit`; None for a count.
    `goal`: a comparison such as ">= 90" or "<= 0.3", or None where nothing is promised.
    """

    name: str
    value: float
    unit: str = ""
    spread: float | None = None
    n: int = 1
    goal: str | None = None

    def __post_init__(self) -> None:
        if self.goal is not None:
            self._split_goal()

    @property
    def met(self) -> bool | None:
        """Whether the value reaches the goal; None without one. A value that is not a number reaches none."""
        if self.goal is None:
            return None
        compare, bound = self._split_goal()
        return bool(compare(self.value, bound))

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": self.value if math.isfinite(self.value) else None,  # JSON has no word for NaN
            "unit": self.unit,
            "spread": self.spread,
            "n": self.n,
            "goal": self.goal,
            "met": self.met,
        }

    def _split_goal(self):
        sign, _, bound = self.goal.partition(" ")
        try:
            return _COMPARISONS[sign], float(bound)
        except (KeyError, ValueError):
            raise ValueError(f"Row {self.name!r}: a goal reads like '>= 90', not {self.goal!r}.") from None


def row_of_samples(name: str, samples: Sequence[float], unit: str = "", goal: str | None = None) -> Row:
    """The median of repeated measurements with half their interquartile range as spread."""
    spread = 0.0
    if len(samples) > 1:
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
        spread = (high - low) / 2
    return Row(name, statistics.median(samples), unit, spread, len(samples), goal)


def describe_machine() -> dict[str, object]:
    """What a reader needs to judge a number: processor, threads, versions. Nothing that identifies anyone."""
    machine: dict[str, object] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _read_processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    try:
        import torch
    except ImportError:
        return machine
    machine |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    machine["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return machine


def format_table(rows: Sequence[Row]) -> str:
    """The rows as an aligned text table; the last column says whether a goal was reached."""
    header = ("name", "value", "spread", "unit", "n", "goal", "")
    lines = [header]
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread:.3g}"
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        lines.append((row.name, f"{row.value:.4g}", spread, row.unit, str(row.n), row.goal or "", verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    numeric = {1, 2, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def format_markdown(rows: Sequence[Row]) -> str:
    """The same as a table of Markdown."""
    lines = ["| what | value | n | goal |", "|---|--:|--:|---|"]
    for row in rows:
        spread = "" if row.spread is None else f" \u00b1 {_short(row.spread)}"
        goal = "" if row.goal is None else f"{'reached' if row.met else '**missed**'}: {row.goal}"
        value = f"{_short(row.value)}{spread} {row.unit}".strip()
        lines.append(f"| {row.name} | {value} | {row.n} | {goal} |")
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"


def write_json(bench: str, rows: Sequence[Row], file: Path) -> None:
    data = {"bench": bench, "machine": describe_machine(), "rows": [row.as_json() for row in rows]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _read_processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
