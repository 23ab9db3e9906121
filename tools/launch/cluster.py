"""`run.py cluster`: Ray in an environment of its own beside ComfyUI's, and what a cluster's machine needs."""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
from pathlib import Path

from . import LaunchError
from .console import Progress, format_seconds
from .environment import CONSTRAINTS, ROOT, RUNTIME, Environment, has_gpu_driver
from .pip import run_pip
from .server import describe_models
from .virtual_environment import make_environment
from .weights import make_folders

RAY = RUNTIME / "cluster"
REQUIREMENTS = ROOT / "cluster" / "requirements.txt"
_FOLDERS = "import site; print(*site.getsitepackages(), sep='\\n')"


def prepare_ray(environment: Environment) -> Path:
    """The Python that has Ray and, behind it, what `environment` has; made first where there is none."""
    stamp = RAY / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8") + str(environment.python)
    RUNTIME.mkdir(exist_ok=True)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") != wanted:
        stamp.unlink()
    python = make_environment(RAY, RUNTIME)
    if stamp.is_file():
        return python
    _see_packages(python, environment.python)
    with Progress("Ray") as step:
        arguments = ["install", "-r", str(REQUIREMENTS), "--constraint", str(CONSTRAINTS)]
        try:
            run_pip(python, arguments, step, RUNTIME)
        except LaunchError as error:
            if "No matching distribution found for ray" in str(error):
                raise LaunchError(
                    f"Ray has no build for Python {platform.python_version()} on {platform.system()} "
                    f"{platform.machine()}: start run.py cluster with another Python, or use run.py api, "
                    "which serves one GPU without Ray."
                ) from None
            raise
        step.finish(f"ready after {format_seconds(step.seconds)}")
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _see_packages(python: Path, other: Path) -> None:
    """Let an environment find another's packages after its own: PyTorch and Pillow are there once."""
    place = _list_folders(python)[0] / "comfyui.pth"
    place.write_text("".join(f"{folder}\n" for folder in _list_folders(other)), encoding="utf-8")


def _list_folders(python: Path) -> list[Path]:
    done = subprocess.run([str(python), "-c", _FOLDERS], capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def make_variables(environment: Environment, data: Path) -> dict[str, str]:
    """The environment of this machine's Ray, from which its workers read what they start."""
    models = data / "models"
    make_folders(models)
    own = data / "cluster"
    own.mkdir(parents=True, exist_ok=True)
    (own / "models.yaml").write_text(describe_models(models), encoding="utf-8")
    variables = dict(
        os.environ,
        PYTHONPATH=str(ROOT),
        KLEINOD_CLUSTER_PYTHON=str(environment.python),
        KLEINOD_CLUSTER_COMFYUI=str(environment.comfyui),
        KLEINOD_CLUSTER_DATA=str(data),
    )
    if environment.packages is not None:
        variables["KLEINOD_CLUSTER_PACKAGES"] = str(environment.packages)
    # Who reaches Ray runs programs: nobody does without this word.
    variables.setdefault("RAY_AUTH_MODE", "token")
    variables.setdefault("RAY_AUTH_TOKEN", _find_token(own / "token"))
    return variables


def _find_token(file: Path) -> str:
    if not file.is_file():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_hex(32))
    return file.read_text(encoding="utf-8").strip()


def count_gpus(environment: Environment) -> int:
    """GPUs of this machine that PyTorch can use; asked only where there is a driver: it takes long."""
    if not has_gpu_driver():
        return 0
    check = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([str(environment.python), "-c", check], capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else 0


def make_command(environment: Environment, data: Path, rest: list[str]) -> list[str]:
    if sys.platform == "win32":
        raise LaunchError(
            "run.py cluster needs Linux or macOS; on Windows use WSL, or run.py api for one GPU."
        )
    python = prepare_ray(environment)
    more = ["--data", str(data), "--gpus", str(count_gpus(environment))]
    return [str(python), "-m", "cluster", *more, *rest]
