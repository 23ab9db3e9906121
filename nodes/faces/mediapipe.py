"""ComfyUI's own MediaPipe face nodes as a detector: boxes and the oval outline of every face.

Needs nothing but the weights that ComfyUI's node "Load Face Detection Model (MediaPipe)" asks for, in
models/detection.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..base import seams
from ..base.errors import InputError
from ..base.sentences import say
from .detection import Face
from .tiling import TiledDetector

comfy = seams.modules("comfy.utils")

SIDE = 640  # pixels of which a face detector of 128 or 192 pixels still sees an ordinary face
MAX_FACES = 64  # of one search: each gets the landmark network
RANGES = ("short", "full")  # near and far faces; what both find is merged


class MediaPipeDetector(TiledDetector):
    """A `Detector` over core's model; ValueError where the file is not that model."""

    def __init__(self, name: str, path: Path, pause: Callable[[], None] = lambda: None) -> None:
        super().__init__(name, SIDE, pause)
        seams.require(seams.MEDIAPIPE)
        try:
            made = seams.find("comfy_extras.nodes_mediapipe:FaceLandmarkerModel")
            self.model = made(comfy.utils.load_torch_file(str(path), safe_load=True))
        except (KeyError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                say(
                    "it is not the MediaPipe face model of ComfyUI: download mediapipe_face_fp32.safetensors."
                )
            ) from error
        self.oval = sorted({index for edge in self.model.connection_sets["face_oval"] for index in edge})

    @torch.inference_mode()
    def search(self, picture: torch.Tensor, confidence: float) -> list[Face]:
        """See `TiledDetector.search`."""
        pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        height, width = pixels.shape[:2]
        faces = []
        for reach in RANGES:
            found = self.model.detect_batch(
                [pixels], num_faces=MAX_FACES, score_thresh=confidence, variant=reach
            )[0]
            for face in found:
                points = face["landmarks_xy"][self.oval]
                box = _box(points, height, width)
                if box is not None:
                    faces.append(Face(box, min(float(face["score"]), 1.0), _outline(points, height, width)))
        return faces


def _box(points: np.ndarray, height: int, width: int) -> tuple[float, float, float, float] | None:
    """Around the points, cut at the picture's edges; None when nothing of it is inside."""
    if not np.isfinite(points).all():
        return None
    low = points.min(0).clip(0, (width, height))
    high = points.max(0).clip(0, (width, height))
    return None if (high <= low).any() else (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def _outline(points: np.ndarray, height: int, width: int) -> torch.Tensor:
    """The oval as a mask `[H, W]`. Seen from its middle the points follow each other by angle."""
    middle = points.mean(0)
    order = np.arctan2(*(points - middle).T[::-1]).argsort()
    canvas = Image.new("L", (width, height), 0)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points[order].tolist()], fill=255)
    return torch.from_numpy(np.asarray(canvas, np.float32) / 255.0)
