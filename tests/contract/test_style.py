"""Rules of the house that a machine can read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.archive import list_repository

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".js", ".md", ".json", ".toml", ".txt", ".yml", ".yaml", ""}


def tracked_files() -> list[Path]:
    return [ROOT / name for name in list_repository(ROOT)]


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_finds_nothing(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--output-format", "concise", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_hold() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_source_is_ascii() -> None:
    odd = [
        str(file.relative_to(ROOT))
        for file in tracked_files()
        if file.suffix == ".py" and _has_odd_bytes(file)
    ]
    assert odd == []


def _has_odd_bytes(file: Path) -> bool:
    return not file.read_bytes().isascii()


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a package registry's host", r"(pypi|pythonhosted|npmjs)\.(org|com)"),
        ("a folder of somebody's machine", r"(?<![\w.])/(work|home|root|Users)/\w"),
        ("a merge conflict", r"^(<{7}|>{7}) "),
    ],
)
def test_no_file_names(what: str, pattern: str) -> None:
    found = []
    for file in tracked_files():
        if file.suffix in TEXT and file != Path(__file__):
            text = file.read_text(encoding="utf-8", errors="replace")
            found += [f"{file.relative_to(ROOT)}: {hit.group()}" for hit in re.finditer(pattern, text, re.M)]
    assert found == [], f"{what} does not belong into the repository"
