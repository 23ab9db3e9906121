"""How well the face detector of klein-nano's world finds faces: `python -m tools.nano.face_exam FILE`.

Scenes drawn with seeds that training never used, clean and damaged, small and large. A face counts as found
when a box overlaps it by half or more (intersection over union), each box for one face only.
"""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import numpy as np
import torch

from .codec import ROOT
from .faces import Box, damage, draw_scene

_pure = sys.modules.setdefault("kleinod_pure", ModuleType("kleinod_pure"))
_pure.__path__ = [str(ROOT / "nodes")]

from kleinod_pure.faces.blueprint import read_blueprint  # noqa: E402
from kleinod_pure.faces.boxes import overlap  # noqa: E402
from kleinod_pure.faces.network import Network  # noqa: E402
from kleinod_pure.faces.yolo import YoloDetector  # noqa: E402

FIRST_SEED = 1_000_000
KINDS: dict[str, dict] = {
    "clean, 28-64 px": {},
    "damaged, 28-64 px": {"damaged": True},
    "small, 16-28 px": {"sizes": (16, 28), "faces": 8},
    "large picture, 24-60 px": {"width": 1024, "height": 768, "sizes": (24, 60), "faces": 14, "things": 8},
    "portrait, 84 px": {"width": 128, "height": 128, "faces": 1, "things": 0, "sizes": (84, 84)},
    "no face": {"faces": 0, "things": 5},
}


def score(found: list[Box], truth: list[Box]) -> tuple[int, int, int]:
    """(found and there, found but not there, there but not found); `found` best first."""
    if not found or not truth:
        return 0, len(found), len(truth)
    overlaps = overlap(torch.tensor(found), torch.tensor(truth))
    hits = 0
    for row in range(len(found)):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= 0.5:
            hits += 1
            overlaps[:, best] = 0
    return hits, len(found) - hits, len(truth) - hits


def examine(detector: YoloDetector, kind: str, pictures: int, confidence: float) -> tuple[int, int, int]:
    """The counts of `score`, summed over pictures of one of `KINDS`."""
    options = dict(KINDS[kind])
    damaged = options.pop("damaged", False)
    totals = np.zeros(3, int)
    for number in range(pictures):
        rng = np.random.default_rng(FIRST_SEED + number)
        picture, faces, _ = draw_scene(rng, **options)
        boxes = [face.box for face in faces]
        if damaged:
            picture = damage(picture, boxes, rng)
        seen = detector.detect(torch.from_numpy(picture), confidence)
        totals += score([face.box for face in seen], boxes)
    return tuple(totals.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("file")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--confidence", type=float, default=0.5)
    options = parser.parse_args()
    detector = YoloDetector("exam", Network(read_blueprint(options.file)))
    print(f"confidence {options.confidence:g}, {options.pictures} pictures a row")
    for kind in KINDS:
        hits, extra, missed = examine(detector, kind, options.pictures, options.confidence)
        precision = f"{hits / (hits + extra):.3f}" if hits + extra else "-"
        recall = f"{hits / (hits + missed):.3f}" if hits + missed else "-"
        print(
            f"{kind:26} precision {precision}  recall {recall}  "
            f"({hits} found, {extra} extra, {missed} missed)"
        )


if __name__ == "__main__":
    main()
