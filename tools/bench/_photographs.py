"""Real photographs to measure on: those that scikit-image brings in its package (all freely usable)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tools.launch.environment import RUNTIME

PACKAGE = "scikit-image==0.25.2"  # the newest that Python 3.10 has, too
FOLDER = RUNTIME / "clients" / "photographs"
NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")
"""A portrait, an animal, a table, a night sky, a room full of edges, a grey picture."""


def load_photographs(names: tuple[str, ...] = NAMES) -> dict[str, np.ndarray]:
    """Name without ending to `[H, W, 3]` float64 in 0..1. Fetches the package the first time."""
    folder = _prepare()
    pictures = {Path(name).stem: Image.open(folder / name).convert("RGB") for name in names}
    return {name: np.asarray(picture, np.float64) / 255 for name, picture in pictures.items()}


def _prepare() -> Path:
    data = FOLDER / "skimage" / "data"
    if not all((data / name).is_file() for name in NAMES):
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        # Its pictures only: nothing of it is imported, so nothing it needs has to come along.
        subprocess.run([*pip, "--upgrade", "--target", str(FOLDER), PACKAGE], check=True)
    return data
