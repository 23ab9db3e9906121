"""Makes the virtual environment under `.runtime/`, on a Python that Debian took its pip from, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import LaunchError, debian
from .console import Progress


def environment_python(folder: Path) -> Path:
    """The Python of a virtual environment, there or not."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_environment(folder: Path, runtime: Path) -> Path:
    """The Python of the virtual environment in `folder`, with pip, made first where there is none.

    LaunchError says what this Python lacks, or what it said. `runtime`: where logs and what is fetched go.
    """
    python = environment_python(folder)
    if _is_ready(python):
        return python
    with Progress("Virtual environment") as step:
        step.update("creating it")
        # --clear: a half-made or orphaned environment, with its stamps, is worth nothing.
        make = [sys.executable, "-m", "venv", "--clear"]
        variables = dict(os.environ)
        commands = [[*make, str(folder)]]
        if not _has_whole_venv(step, runtime):
            variables |= _find_pip(step, runtime)
            commands = [
                [*make, "--without-pip", str(folder)],
                [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "pip"],
            ]
        said = ""
        for command in commands:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace")
            said += done.stdout + done.stderr
        if not _is_ready(python):
            raise LaunchError(f"Python could not make a virtual environment in {folder}:\n{said.strip()}")
        step.finish(f"made with Python {sys.version.split()[0]}")
    return python


def _is_ready(python: Path) -> bool:
    if not python.is_file():
        return False
    check = "import sys, pip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))"
    return subprocess.run([str(python), "-c", check], capture_output=True).returncode == 0


def _has_whole_venv(step: Progress, runtime: Path) -> bool:
    """Whether `python -m venv` brings pip; on Debian it does after python3-venv was installed, as root."""
    if not _imports("venv", "ensurepip") and debian.can_install():
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        debian.install([f"python{version}-venv"], step, runtime / "logs" / "setup.log")
    return _imports("venv", "ensurepip")


def _find_pip(step: Progress, runtime: Path) -> dict[str, str]:
    """The variables with which this Python has a pip of some kind; LaunchError where none is to be had."""
    if _imports("venv", "pip"):
        return {}
    place = runtime / "pip"
    if _imports("venv") and debian.can_unpack():
        debian.unpack(["python3-pip-whl"], place, step, runtime / "logs" / "setup.log")
        wheels = sorted(place.glob("root/usr/share/python-wheels/pip-*.whl"))
        if wheels:
            return {"PYTHONPATH": str(wheels[-1])}
    raise LaunchError(
        f"This Python ({sys.executable}) cannot make virtual environments: it lacks the modules venv or pip. "
        "On Debian or Ubuntu: apt install python3-venv; elsewhere one with both. Then start run.py again."
    )


def _imports(*modules: str) -> bool:
    """Whether this Python has modules, asked in a process of its own, which sees what was just installed."""
    command = [sys.executable, "-c", "import " + ", ".join(modules)]
    return subprocess.run(command, capture_output=True).returncode == 0
