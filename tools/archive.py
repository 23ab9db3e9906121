"""What belongs to the repository, and what of it the Comfy registry would publish."""

from __future__ import annotations

import fnmatch
import subprocess
from pathlib import Path

_GENERATED = {
    ".git",
    ".runtime",
    ".artifacts",
    "output",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
}


def list_repository(root: Path) -> list[str]:
    """Paths that git tracks; in a copy without git, every file that no tool of ours generated."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]
    files = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return sorted(file.as_posix() for file in files if not _GENERATED & set(file.parts))


def list_published(root: Path) -> list[str]:
    """The repository without what `.comfyignore` names."""
    lines = (root / ".comfyignore").read_text(encoding="utf-8").splitlines()
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [
        name
        for name in list_repository(root)
        if not any(
            name.startswith(rule) if rule.endswith("/") else fnmatch.fnmatch(name, rule) for rule in rules
        )
    ]
