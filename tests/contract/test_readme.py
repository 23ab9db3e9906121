"""What the README shows and claims is there: its pictures, its links, and a test behind every feature."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_BYTES = 500_000

_LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
LINKS = [(mark == "!", unquote(target)) for mark, target in _LINK.findall(README) if "://" not in target]
PICTURES = [target for is_picture, target in LINKS if is_picture]


def feature_table() -> list[list[str]]:
    """Cells of the table that stands beside others: feature, ours, ComfyUI's, a pack's, proof."""
    lines = README.split("## Beside what you may use today")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return rows[1:]


def test_links_lead_somewhere() -> None:
    assert LINKS
    assert [target for _, target in LINKS if not (ROOT / target.split("#")[0]).exists()] == []


def test_pictures_are_small_and_shipped() -> None:
    assert len(PICTURES) >= 3
    left_out = [line.strip("/") for line in (ROOT / ".comfyignore").read_text().splitlines() if line]
    for target in PICTURES:
        assert (ROOT / target).stat().st_size < MOST_BYTES, target
        assert Path(target).parts[0] not in left_out, f"{target} is not in the archive, its page shows a gap"


def test_the_first_picture_stands_on_the_first_screen() -> None:
    assert PICTURES[0] in README[:1200]


@pytest.mark.parametrize("row", feature_table(), ids=lambda row: row[0][:40])
def test_what_we_claim_is_tested(row: list[str]) -> None:
    """A feature of ours names its tests; one we lack names none."""
    assert len(row) == 5
    proofs = [ROOT / target for _, target in _LINK.findall(row[-1])]
    if row[1].startswith("no"):
        assert proofs == []
        return
    assert proofs
    for proof in proofs:
        assert proof.is_relative_to(ROOT / "tests") and proof.name.startswith("test_")


def test_commands_exist() -> None:
    benches = re.findall(r"run\.py bench (\w+)", README)
    makers = re.findall(r"python -m tools\.([\w.]+)", README)
    assert benches and makers
    assert [name for name in benches if not (ROOT / "tools" / "bench" / f"{name}.py").is_file()] == []
    assert [name for name in makers if not (ROOT / "tools" / f"{name.replace('.', '/')}.py").is_file()] == []
