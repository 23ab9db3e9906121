"""Detection through the user's own `ultralytics` package, for files whose layers Kleinod does not rebuild.

Imported only when such a file is used, and under guard: its safe loading is switched on before it comes in,
so that a file's pickle runs nothing; it may neither connect, install nor report; and what it changes in this
process (threads, environment, torch.save, print options) is put back. Every file has been through
`torch_file.py` first, which refuses whatever is not in its constant list. The four releases of December 2024
that carried a miner are refused by their number, before a line of them runs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from ..base.errors import InputError
from ..base.sentences import say
from .detection import Face
from .tiling import TiledDetector
from .yolo import DUPLICATE, MAX_FOUND, choose_classes

PACKAGES = ("ultralytics", "ultralytics-opencv-headless", "dgenerate-ultralytics-headless")
COMPROMISED = ("8.3.41", "8.3.42", "8.3.45", "8.3.46")  # ultralytics issue 18027
GUARDS = {
    "ULTRALYTICS_SAFE_LOAD": "1",
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
}


def installed_version() -> str | None:
    """The version of the installed package, from its metadata, without importing it; None without one."""
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def import_guarded() -> ModuleType:
    """The package, safe to load files with; ValueError with what to do where it is not."""
    loaded = sys.modules.get("ultralytics")
    version = getattr(loaded, "__version__", None) or installed_version()
    if version is None:
        raise InputError(say("The Python package ultralytics is not installed."))
    if version in COMPROMISED:
        raise InputError(
            say(
                "ultralytics %1 is installed, one of four releases that carried malicious code: "
                "remove it, check this machine, and install a current one.",
                version,
            )
        )
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        raise InputError(
            say("Loading files safely with ultralytics needs PyTorch 2.6 or newer: update ComfyUI.")
        )
    with unchanged_process():
        os.environ.update(GUARDS)
        os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(tempfile.gettempdir()) / "kleinod-ultralytics"))
        try:
            package = importlib.import_module("ultralytics")
            facts = importlib.import_module("ultralytics.utils")
        except Exception as error:  # whatever is wrong in a package of somebody else's
            reason = f"{type(error).__name__}: {error}"
            raise InputError(say("ultralytics %1 does not start (%2).", version, reason)) from error
    if getattr(facts, "SAFE_LOAD", None) is not True:
        raise InputError(
            say(
                "ultralytics %1 would load files unsafely. "
                "Update it, or, where another pack loads it before this one, "
                "start ComfyUI with ULTRALYTICS_SAFE_LOAD=1 and YOLO_OFFLINE=true in its environment.",
                version,
            )
        )
    if getattr(facts, "ONLINE", None) is not False:
        raise InputError(
            say(
                "ultralytics %1 was loaded by another pack with its reporting on: "
                "start ComfyUI with ULTRALYTICS_SAFE_LOAD=1 and YOLO_OFFLINE=true in its environment.",
                version,
            )
        )
    return package


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Puts back what Ultralytics changes for the whole process, whatever happens in between."""
    environment = dict(os.environ)
    threads, save, load = torch.get_num_threads(), torch.save, torch.load
    torch_printing = dict(vars(torch._tensor_str.PRINT_OPTS))
    numpy_printing = np.get_printoptions()
    vision = sys.modules.get("cv2")
    vision_threads = vision.getNumThreads() if vision else None
    try:
        yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.save, torch.load = save, load
        vars(torch._tensor_str.PRINT_OPTS).update(torch_printing)
        np.set_printoptions(**numpy_printing)
        if vision is None and "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(-1)  # OpenCV's own default
        elif vision is not None:
            vision.setNumThreads(vision_threads)


class UltralyticsDetector(TiledDetector):
    """A `Detector` that asks the package. ValueError where the package, or the file in it, is not usable."""

    def __init__(
        self, name: str, path: Path, side: int, device: str = "cpu", pause: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name, side, pause)
        stem = path.stem.lower()
        if ("yolov5" in stem or "yolov3" in stem) and not stem.endswith("u"):
            # Seen with 8.4.190, offline or not: it fetches yolov5nu.pt in place of a file called yolov5n.pt.
            raise InputError(
                say("ultralytics would download another file in place of one so called: rename it.")
            )
        package = import_guarded()
        self.device = torch.device(device)  # as a string it would change CUDA_VISIBLE_DEVICES
        with unchanged_process():
            try:
                self.model = package.YOLO(str(path))
                labels = self.model.names
            except Exception as error:
                raise InputError(say("ultralytics does not load it (%1).", type(error).__name__)) from error
        self.labels = tuple(str(labels[index]) for index in sorted(labels))

    def search(self, picture: torch.Tensor, confidence: float) -> list[Face]:
        """See `TiledDetector.search`."""
        # It takes numpy pictures as OpenCV has them: blue first.
        pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).flip(-1).contiguous().numpy()
        with unchanged_process():
            found = self.model.predict(
                pixels,
                conf=max(confidence, 1e-6),
                iou=DUPLICATE,
                max_det=MAX_FOUND,
                classes=choose_classes(self.labels),
                device=self.device,
                retina_masks=True,
                verbose=False,
            )[0]
        boxes = found.boxes
        masks = found.masks.data.float().cpu() if found.masks is not None else [None] * len(boxes)
        rows = zip(boxes.xyxy.cpu(), boxes.conf.cpu(), boxes.cls.cpu(), masks, strict=True)
        return [
            Face(tuple(box.tolist()), float(score), mask, self.labels[int(label)])
            for box, score, label, mask in rows
            if bool((box[2:] > box[:2]).all())
        ]
