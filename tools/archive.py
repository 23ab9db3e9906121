"""What belongs to the repository, and what of it the Comfy registry would publish."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

_GENERATED = {
    ".git",
    ".runtime",
    ".artifacts",
    "output",
    "node.zip",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    ".hypothesis",
}

# The archive, folder by folder: something new at the top is meant to be noticed here.
TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "__init__.py",
    "js",
    "locales",
    "nodes",
    "pyproject.toml",
    "subgraphs",
    "workflows",
}
# What may be in it at all. Weights are safetensors: no file of the pack can carry code that nobody reads.
KINDS = {".css", ".html", ".jpg", ".js", ".json", ".md", ".png", ".py", ".safetensors", ".svg", ".toml", ""}
# Everything larger than 1 MiB: klein-nano and its face detector, which make the pack run without downloads.
LARGE = {
    "nodes/faces/detector_weights/faces.safetensors",
    "nodes/model/nano_weights/autoencoder.safetensors",
    "nodes/model/nano_weights/text_encoder.safetensors",
    "nodes/model/nano_weights/transformer.safetensors",
}
MOST_BYTES = 30 * 2**20


def list_repository(root: Path) -> list[str]:
    """Paths that git tracks; in a copy without git, every file that no tool of ours generated."""
    if shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
        if listed.returncode == 0:
            return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]
    files = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return sorted(file.as_posix() for file in files if not _GENERATED & set(file.parts))


def list_published(root: Path) -> list[str]:
    """The repository without what `.comfyignore` names."""
    lines = (root / ".comfyignore").read_text(encoding="utf-8").splitlines()
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [name for name in list_repository(root) if not any(_matches(name, rule) for rule in rules)]


def find_faults(sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with an archive of these files (path: bytes), each in one sentence; [] is a good one."""
    tops = {name.partition("/")[0] for name in sizes}
    faults = [f"{name} is new at the top of the archive." for name in sorted(tops - TOP_LEVEL)]
    faults += [f"{name} is missing." for name in sorted(TOP_LEVEL - tops)]
    faults += [f"{name} is of a kind that is not published." for name in _odd_kinds(sizes)]
    large = {name for name, size in sizes.items() if size > 2**20}
    faults += [f"{name} is larger than 1 MiB, and nobody said why." for name in sorted(large - LARGE)]
    if sum(sizes.values()) >= MOST_BYTES:
        faults.append(f"All files together are {sum(sizes.values()) / 2**20:.1f} MiB, 30 or more.")
    return faults


def _odd_kinds(names: Iterable[str]) -> list[str]:
    def is_odd(path: PurePosixPath) -> bool:
        hidden = any(part.startswith(".") for part in path.parts)
        return hidden or path.suffix not in KINDS or (not path.suffix and path.name != "LICENSE")

    return sorted(name for name in names if is_odd(PurePosixPath(name)))


def _matches(name: str, rule: str) -> bool:
    """A path and a rule of git's ignore files, as far as ours go; tests compare with comfy-cli's reading."""
    *folders, file = name.split("/")
    bare = rule.strip("/")
    if rule.endswith("/"):
        return bare in (folders[:1] if rule.startswith("/") else folders)
    return name == bare if rule.startswith("/") else fnmatch.fnmatch(file, bare)
