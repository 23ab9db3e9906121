"""The page of `run.py bench gpu`: what failed stands first, nothing that ran is lost."""

from __future__ import annotations

import json

from tools.bench.gpu import read_rows, write_page
from tools.bench.report import Row

MACHINE = {"device": "some card", "torch": "2.11.0", "python": "3.12.3", "system": "Linux x86_64"}


def entry(row: Row, section: str = "steps", memory: str = "whole") -> dict:
    return json.loads(json.dumps({"section": section, "memory": memory, "row": row.as_json()}))


ENTRIES = [
    {"section": "pictures", "memory": "whole", "begins": True},
    entry(Row("largest difference", 0.0, "", None, 1, "== 0"), "pictures"),
    entry(Row("a guided step", 0.179, "s", 0.002, 15)),
    entry(Row("first block: a skipped step", 9.7, "% of a step", 0.5, 9, "<= 5"), memory="dynamic"),
    {"section": "steps", "memory": "dynamic", "failed": "LoRAs", "why": "OutOfMemoryError: none left"},
    {"section": "steps", "memory": "dynamic", "skipped": "fp8_e4m3fn"},
]


def test_rows_name_the_way_of_memory_and_a_failure_reaches_no_goal() -> None:
    rows = read_rows(ENTRIES)
    assert [row.name for row in rows] == [
        "whole: largest difference",
        "whole: a guided step",
        "dynamic: first block: a skipped step",
        "dynamic: LoRAs failed",
    ]
    assert [row.met for row in rows] == [True, None, False, False]


def test_the_page_says_what_failed_before_any_number() -> None:
    page = write_page(ENTRIES, MACHINE)
    wrong, _, numbers = page.partition("## klein-nano")
    assert "some card" in wrong and "1 reached, 2 missed" in wrong
    assert "first block: a skipped step: 9.7" in wrong and "wanted <= 5" in wrong
    assert "LoRAs: OutOfMemoryError: none left" in wrong
    assert "fp8_e4m3fn: left out, the time was over" in wrong
    assert "| a guided step | 0.179" in numbers and "**missed**: <= 5" in numbers
    assert "begins" not in page


def test_without_a_card_the_page_says_so_before_any_number() -> None:
    page = write_page(ENTRIES, MACHINE | {"device": "cpu", "processor": "some processor"}, small=True)
    said, _, numbers = page.partition("## What was missed")
    assert "without a card" in said and "some processor" in said and "128 wide" in said
    assert "No time here says anything about a graphics card" in said
    assert "One run" not in said, "nothing is made up about a load that was not measured"
    busy = write_page(ENTRIES, MACHINE | {"took": "21 minutes", "busy": "1.9 and 5.2"}, small=True)
    assert "One run of 21 minutes" in busy and "1.9 and 5.2 processes" in busy
    assert "1024x1024: steps" not in numbers and "ComfyUI's default on NVIDIA cards" not in numbers
