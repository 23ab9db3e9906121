"""The makers of what is shipped: one room, one command, an order in which each finds what it reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.shipped.__main__ import MAKERS, STEPS

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / "tools" / "shipped"
# What they draw from, the one that belongs to a release, and the one that goes with klein-nano's weights.
NOT_STEPS = {"layouts", "recipes", "keep_workflows", "tables"}


def test_every_maker_is_a_step() -> None:
    modules = {file.stem for file in ROOM.glob("*.py")} - {"__init__", "__main__"}
    assert modules - NOT_STEPS == set(STEPS) - set(MAKERS)


def test_a_maker_comes_after_what_it_reads() -> None:
    order = list(STEPS)
    assert order.index("schema") < order.index("templates") < order.index("blueprints")


def test_help_tells_the_order_without_making_anything() -> None:
    for arguments, status in ((["--help"], 0), (["pictuers"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "tools.shipped", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == status
        assert [line.split()[0] for line in done.stdout.splitlines()[-len(STEPS) :]] == list(STEPS)
