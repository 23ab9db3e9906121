"""Git for the tests of a release, which pack what it tracks: the installed one, or Debian's."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import LaunchError, debian
from .console import Progress, format_seconds


def prepare_git(runtime: Path) -> Path | None:
    """The folder of an unpacked `git`, None where the PATH has one; LaunchError where none is to be had."""
    program = runtime / "git" / "bin" / "git"
    if shutil.which("git"):
        return None
    if program.is_file():
        return program.parent
    log = runtime / "logs" / "setup.log"
    with Progress("Git") as step:
        installed = debian.can_install() and debian.install(["git"], step, log) and shutil.which("git")
        unpacked = (
            not installed and debian.can_unpack() and debian.unpack(["git"], runtime / "git", step, log)
        )
        if unpacked:
            root = runtime / "git" / "root"
            places = {"GIT_EXEC_PATH": "usr/lib/git-core", "GIT_TEMPLATE_DIR": "usr/share/git-core/templates"}
            variables = {name: str(root / place) for name, place in places.items()}
            debian.write_launcher(program, root / "usr/bin/git", root, variables)
        if not installed and not unpacked:
            raise LaunchError("Git was not found, and tests of the release need it: install it, start again.")
        step.finish(f"ready after {format_seconds(step.seconds)}")
    return program.parent if unpacked else None
