"""Runs in the detectors' environment: the faces MTCNN finds on the photograph that scikit-image brings.

Prints the photograph's path and the boxes with their scores. facenet-pytorch's weights lie in its package.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from facenet_pytorch import MTCNN
from PIL import Image

# Found without importing scikit-image, which would need more than is installed here.
folder = importlib.util.find_spec("skimage").submodule_search_locations[0]
photograph = Path(folder) / "data" / "astronaut.png"
boxes, scores = MTCNN(keep_all=True).detect(Image.open(photograph).convert("RGB"))
faces = [[*map(float, box), float(score)] for box, score in zip(boxes, scores, strict=True) if score >= 0.9]
print(json.dumps({"photograph": str(photograph), "faces": faces}))
