"""Rows, goals and the JSON that other programs read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tools.bench.report import Row, format_markdown, format_table, row_of_samples, write_json


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (90.0, ">= 90", True),
        (89.99, ">= 90", False),
        (0.3, "<= 0.3", True),
        (0.31, "<= 0.3", False),
        (3, "> 3", False),
        (2, "< 3", True),
        (1, "== 1", True),
        (math.nan, ">= 0", False),
        (5, None, None),
    ],
)
def test_met_is_computed_from_the_goal(value: float, goal: str | None, met: bool | None) -> None:
    assert Row("x", value, goal=goal).met is met


@pytest.mark.parametrize("goal", ["90", ">=90", "at least 90", ">= many", ""])
def test_an_unreadable_goal_is_refused_at_once(goal: str) -> None:
    with pytest.raises(ValueError, match="a goal reads like"):
        Row("x", 1.0, goal=goal)


def test_samples_give_median_and_half_the_middle_range() -> None:
    row = row_of_samples("x", [5.0, 1.0, 3.0, 2.0, 4.0], "ms")
    assert (row.value, row.spread, row.n) == (3.0, 1.0, 5)
    assert row_of_samples("x", [7.0]).spread == 0.0


def test_json_has_the_agreed_form(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rows.json"
    write_json("startup", [Row("import", 0.2, "s", 0.01, 5, "<= 0.3"), Row("count", 3)], file)
    data = json.loads(file.read_text(encoding="utf-8"))
    assert set(data) == {"bench", "machine", "rows"}
    assert data["bench"] == "startup"
    assert data["machine"]["cores"] >= 1
    assert data["rows"] == [
        {"name": "import", "value": 0.2, "unit": "s", "spread": 0.01, "n": 5, "goal": "<= 0.3", "met": True},
        {"name": "count", "value": 3, "unit": "", "spread": None, "n": 1, "goal": None, "met": None},
    ]


def test_table_says_what_was_missed() -> None:
    table = format_table(
        [Row("good", 95, "%", goal=">= 90"), Row("bad", 5, "%", goal=">= 90"), Row("free", 1)]
    )
    lines = table.splitlines()
    assert lines[1].endswith("met") and lines[2].endswith("MISSED") and lines[3].endswith("1")


def test_the_page_of_a_bench_says_what_was_missed() -> None:
    page = format_markdown(
        [Row("a", 1.5, "x", goal=">= 2"), row_of_samples("b", [1, 2, 3, 4], "ms", "< 9"), Row("c", 3)]
    )
    assert "| a | 1.5 x | 1 | **missed**: >= 2 |\n" in page
    assert "| b | 2.5 \u00b1 0.75 ms | 4 | reached: < 9 |\n" in page
    assert page.endswith("| c | 3 | 1 |  |\n")
