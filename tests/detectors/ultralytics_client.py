"""Runs in the detectors' environment: YOLO files made by Ultralytics, and what Ultralytics sees with them.

    ultralytics_client.py REPOSITORY FOLDER NETWORK...

Files of the networks (yolov8n, ...) with random weights go to FOLDER, pictures to FOLDER/pictures.pt,
findings to FOLDER/<network>.found.pt. Ultralytics comes in through the pack's own guard; what that let
through is printed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import torch

REPOSITORY, FOLDER, NAMES = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
for alias, place in (("kleinod_pure", "nodes"), ("tests", "tests")):
    module = ModuleType(alias)
    module.__path__ = [str(REPOSITORY / place)]
    sys.modules[alias] = module

package = importlib.import_module("kleinod_pure.faces.ultralytics_package")
pictures = importlib.import_module("tests.core.yolo_files").small_pictures(2)

CONFIDENCE = 0.5


def enliven(model: torch.nn.Module, seed: int) -> None:
    """Random weights that answer differently from place to place: normalised for pictures like ours."""
    generator = torch.Generator().manual_seed(seed)
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "dfl" not in name:
                scale = 1.6 / weight[0].numel() ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
        for layer in norms:
            layer.momentum = 1.0
        model.train()
        model(pictures.permute(0, 3, 1, 2))
        for layer in norms:
            layer.momentum = 0.03
        head = model.model[-1]
        for branch in ("cv3", "one2one_cv3"):
            for layers in getattr(head, branch, None) or []:
                layers[-1].bias.fill_(-3.0)
                layers[-1].weight.mul_(0.35)
        for branch in ("cv2", "one2one_cv2"):
            for layers in getattr(head, branch, None) or []:
                layers[-1].bias.fill_(2.0 if head.reg_max == 1 else 0.0)
    model.eval()


def look(detector, picture: torch.Tensor, confidence: float) -> list[dict]:
    found = detector.search(picture, confidence)
    return [{"box": face.box, "score": face.score, "label": face.label, "mask": face.mask} for face in found]


def main() -> None:
    events: list[str] = []
    sys.addaudithook(lambda event, _: events.append(event) if event.startswith("socket.") else None)
    torch.set_num_threads(2)
    before = dict(os.environ), torch.get_num_threads(), torch.save, torch.load
    ultralytics = package.import_guarded()
    torch.save(pictures, FOLDER / "pictures.pt")
    for number, name in enumerate(NAMES):
        model = ultralytics.YOLO(f"{name}.yaml")
        enliven(model.model, number)
        names = ["face", "hand"] if name == "yolov8n" else None
        if names:
            model.model.names = {i: names[i % 2] for i in range(len(model.model.names))}
        model.save(str(FOLDER / f"{name}.pt"))
    torch.set_num_threads(2)
    os.environ.clear()
    os.environ.update(before[0])
    torch.save, torch.load = before[2:]
    for name in NAMES:
        detector = package.UltralyticsDetector(name, FOLDER / f"{name}.pt", 256)
        detector.model.overrides["imgsz"] = 256
        found = [look(detector, picture, CONFIDENCE) for picture in pictures]
        torch.save(found, FOLDER / f"{name}.found.pt")
    after = dict(os.environ), torch.get_num_threads(), torch.save, torch.load
    print(json.dumps({"version": ultralytics.__version__, "unchanged": before == after, "events": events}))


main()
