"""What must hold before the Comfy registry gets a version; `.github/workflows/publish.yml` and the tests ask.

python -m tools.release compare COMMIT   prints new=true if the version differs from that commit's
python -m tools.release check            comfy-cli's validation and archive (requirements-comfy-cli.txt)
python -m tools.release notes            what the changelog says of the version
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.archive import find_faults, list_published

ROOT = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r'^version = "(\d+\.\d+\.\d+)"$', re.MULTILINE)


class ReleaseError(Exception):
    """A sentence for whoever is about to publish."""


def read_version(pyproject: str) -> str:
    """The one place where the version stands: `[project]` of pyproject.toml."""
    found = _VERSION.findall(pyproject)
    if len(found) != 1:
        raise ReleaseError('pyproject.toml must have one line version = "X.Y.Z".')
    return found[0]


def read_notes(changelog: str, version: str) -> str:
    """The changelog's section of a version, without its heading."""
    parts = re.split(r"^## \[?([^\]\s]+)\]?(?: - (\d{4}-\d{2}-\d{2}))?$", changelog, flags=re.MULTILINE)
    sections = dict(zip(parts[1::3], zip(parts[2::3], parts[3::3], strict=True), strict=True))
    date, text = sections.get(version, (None, ""))
    if date is None or not text.strip():
        raise ReleaseError(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with text below it.")
    return text.strip() + "\n"


def is_new(root: Path, before: str) -> bool:
    """Whether the version differs from that of the commit `before`.

    Also where that commit cannot be read (the first push, a rewritten branch, a start by hand): the registry
    itself refuses a version it has.
    """
    command = ["git", "show", f"{before}:pyproject.toml"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True) if before else None
    if shown is None or shown.returncode:
        return True
    return read_version(shown.stdout) != read_version((root / "pyproject.toml").read_text(encoding="utf-8"))


def run_comfy(python: str | Path, root: Path, *arguments: str) -> str:
    """What `comfy node ...` says; it gets an empty home, asks nothing and reports nothing. ReleaseError."""
    with tempfile.TemporaryDirectory(prefix="kleinod-comfy-cli-") as home:
        unwanted = ("PYTHONPATH", "PYTHONHOME")
        variables = {name: value for name, value in os.environ.items() if name not in unwanted}
        variables |= {"HOME": home, "XDG_CONFIG_HOME": home, "USERPROFILE": home, "APPDATA": home}
        variables |= {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        command = [str(python), "-m", "comfy_cli", "--no-json", "--skip-prompt", "--no-enable-telemetry"]
        done = subprocess.run(
            [*command, "node", *arguments],
            cwd=root,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
    if done.returncode:
        raise ReleaseError(f"comfy node {' '.join(arguments)} failed:\n{done.stdout}")
    return done.stdout


def validate(root: Path, python: str | Path = sys.executable) -> None:
    """`comfy node validate`, whose exit status knows no warnings: here each is an error. ReleaseError."""
    said = run_comfy(python, root, "validate")
    if "All validation checks passed" not in said or "warning" in said.lower():
        raise ReleaseError(f"comfy node validate is not content:\n{said}")


def pack(root: Path, python: str | Path = sys.executable) -> tuple[dict[str, int], int]:
    """The archive that comfy-cli would upload, packed and deleted again: its files' bytes, and its own."""
    archive = root / "node.zip"
    try:
        run_comfy(python, root, "pack")
        with zipfile.ZipFile(archive) as opened:
            return {entry.filename: entry.file_size for entry in opened.infolist()}, archive.stat().st_size
    finally:
        archive.unlink(missing_ok=True)


def check(root: Path, python: str | Path = sys.executable) -> str:
    """Everything a version must pass before it is published, as one line; ReleaseError with what is wrong."""
    version = read_version((root / "pyproject.toml").read_text(encoding="utf-8"))
    read_notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    validate(root, python)
    sizes, packed = pack(root, python)
    faults = find_faults(sizes)
    odd = sorted(set(sizes) ^ set(list_published(root)))
    faults += [f"{name}: comfy-cli and tools/archive.py disagree on it." for name in odd]
    if faults:
        raise ReleaseError("The archive is not as it should be:\n" + "\n".join(faults))
    return f"{version}: {len(sizes)} files, {sum(sizes.values()):,} bytes, {packed:,} packed"


def main(arguments: list[str]) -> int:
    wanted, *rest = arguments or ["help"]
    try:
        if wanted == "compare" and len(rest) == 1:
            print(f"new={str(is_new(ROOT, rest[0])).lower()}")
        elif wanted == "check" and not rest:
            print(check(ROOT))
        elif wanted == "notes" and not rest:
            version = read_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            print(read_notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version), end="")
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
