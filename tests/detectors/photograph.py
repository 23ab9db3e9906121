"""A real photograph (Eileen Collins, NASA, public domain) and where an independent detector sees the face."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.borrowed import run_script


@functools.cache
def photograph_with_face() -> tuple[torch.Tensor, tuple[tuple[float, float, float, float], ...]]:
    """IMAGE `[1, 512, 512, 3]` and the boxes MTCNN finds on it."""
    found = run_script("detectors", Path(__file__).with_name("mtcnn_client.py"))
    pixels = np.asarray(Image.open(found["photograph"]).convert("RGB"), np.float32) / 255.0
    return torch.from_numpy(pixels)[None], tuple(tuple(face[:4]) for face in found["faces"])
