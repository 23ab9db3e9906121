"""CONTRIBUTING names what is there: files, folders, commands, and every room below all it may import."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.test_rooms import MAY_IMPORT

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = "nodes|cluster|tests|tools|js|locales|workflows|subgraphs"
NAMED = re.findall(rf"`((?:{FOLDERS})(?:/[\w./-]+)?|\.\w[\w./-]*)`", TEXT)
PLACES = sorted({place if "NAME" not in place else str(Path(place).parent) for place in NAMED})


@pytest.mark.parametrize("place", PLACES)
def test_named_places_exist(place: str) -> None:
    assert (ROOT / place).exists()


def test_modules_that_are_named_can_be_run() -> None:
    modules = re.findall(r"`python -m (tools[\w.]+)", TEXT)
    assert modules
    for module in modules:
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module


def test_a_room_stands_below_every_room_it_may_import() -> None:
    table = TEXT.split("| Room | Holds |")[1].split("\n\n")[0]
    floors = [set(re.findall(r"`nodes/(\w+)`", line.split("|")[1])) for line in table.splitlines()[2:]]
    there = {file.parent.name for file in (ROOT / "nodes").glob("*/__init__.py")}
    assert set().union(*floors) >= there
    above: set[str] = set()
    for floor in floors:
        assert all(MAY_IMPORT[room] <= above for room in floor)
        above |= floor
