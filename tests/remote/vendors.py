"""The vendors' clients, each in a virtual environment under `.runtime/clients`, made once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).with_name("clients")
RUNWARE_SDK = pytest.mark.python(3, 11)
"""For tests of Runware's present client, whose every release asks for Python 3.11."""


def prepare(name: str, complete: bool = False) -> Path:
    """The Python that has `tests/requirements-<name>.txt` installed. Needs the network the first time only.

    complete: the file names every package that is needed, and nothing else shall come with them.
    """
    requirements = ROOT / "tests" / f"requirements-{name}.txt"
    folder = ROOT / ".runtime" / "clients" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed.txt"
    wanted = requirements.read_text(encoding="utf-8")
    with FileLock(folder.with_suffix(".lock")):  # two workers of pytest may ask for the same at once
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return python
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder)  # without a pip of its own, which would take longer than most of the clients
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        pip += ["install", "-q", *(["--no-deps"] if complete else []), "-r", str(requirements)]
        done = subprocess.run(pip, capture_output=True, text=True, env=_clean_environment())
        assert done.returncode == 0, done.stderr
        stamp.write_text(wanted, encoding="utf-8")
    return python


def run_client(name: str, script: str, url: str, key: str, *more: str) -> object:
    """What a client script prints as its last line, parsed."""
    command = [str(prepare(name)), str(CLIENTS / script), url, key, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=_clean_environment())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def _clean_environment() -> dict[str, str]:
    """Without keys and paths of ours: the client must get along with its arguments."""
    unwanted = ("RUNWARE_API_KEY", "BFL_API_KEY", "PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER")
    return {name: value for name, value in os.environ.items() if name not in unwanted} | {"LANG": "C.UTF-8"}


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(prepare(wanted))
