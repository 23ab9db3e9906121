"""Other people's software to compare with, each in a virtual environment under `.runtime/clients`, made once.

Installed without what they depend on: torch and the rest come from the environment that runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prepare(name: str) -> Path:
    """The Python that has `tests/requirements-<name>.txt`. Needs the network the first time only."""
    requirements = ROOT / "tests" / f"requirements-{name}.txt"
    folder = ROOT / ".runtime" / "clients" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed.txt"
    ours = "\n".join(sorted({os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}))
    wanted = "\n".join([requirements.read_text(encoding="utf-8"), sys.version, ours])
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "-r", str(requirements)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        inside = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = subprocess.run(inside, capture_output=True, text=True, check=True).stdout.strip()
        (Path(packages) / "kleinod.pth").write_text(ours + "\n", encoding="utf-8")
        stamp.write_text(wanted, encoding="utf-8")
    return python


def run_script(name: str, script: Path, *arguments: str, timeout: float = 300) -> dict:
    """What `script` prints as its last line, parsed; it runs where `name` is installed, out of reach of our
    settings."""
    unwanted = ("PYTHONPATH", "PYTHONHOME")
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in unwanted and not key.startswith(("YOLO_", "ULTRALYTICS_"))
    }
    command = [str(prepare(name)), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
