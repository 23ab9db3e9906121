"""Which face detectors there are, and loading the picked one: model folders, devices, back ends."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

from ..base import seams
from ..base.errors import InputError
from ..base.sentences import Sentence, join, say
from .blueprint import read_blueprint
from .detection import Detector
from .mediapipe import MediaPipeDetector
from .network import Network, UnknownLayer
from .ultralytics_package import UltralyticsDetector
from .yolo import YoloDetector

comfy = seams.modules("comfy.model_management")
folder_paths = seams.find("folder_paths")

NANO_FACES = "klein-nano faces (built in)"
NANO_FILE = Path(__file__).with_name("detector_weights") / "faces.safetensors"
MEDIAPIPE = "MediaPipe/"
SUFFIXES = (".pt", ".pth", ".safetensors")

# Folder keys, paths and names of ComfyUI-Impact-Subpack, so that both packs see the same files.
_KEYS = {"bbox/": "ultralytics_bbox", "segm/": "ultralytics_segm", "": "ultralytics"}


def list_detectors() -> list[str]:
    """What a user may pick; the first is the best default: a face detector of theirs before anything else."""
    if not folder_paths:
        return [NANO_FACES]
    _add_folders()
    found: dict[str, None] = {}
    for prefix, key in _KEYS.items():
        for file in folder_paths.get_filename_list(key):
            name = prefix + file.replace(os.sep, "/")
            if name.lower().endswith(SUFFIXES):
                found.setdefault(name)
    names = sorted(found, key=lambda name: ("face" not in name.lower(), name.lower()))
    return [*names, *(MEDIAPIPE + file for file in _mediapipe_files()), NANO_FACES]


def load_detector(name: str, through_package: bool = False) -> Detector:
    """The detector of that name, the very one where somebody still holds it. Raises InputError when it is
    missing or cannot be read.

    through_package: with the user's ultralytics package even where Kleinod reads the file itself.
    """
    if name == NANO_FACES:
        path = NANO_FILE
    elif name.startswith(MEDIAPIPE):
        path = _full_path("detection", name.removeprefix(MEDIAPIPE), name)
    else:
        _add_folders()
        prefix = next(prefix for prefix in _KEYS if name.startswith(prefix))
        path = _full_path(_KEYS[prefix], name.removeprefix(prefix), name)
    status = path.stat()
    try:
        key = (name, path, status.st_mtime_ns, status.st_size, through_package)
        found = _in_use.get(key)
        if found is None:
            found = _in_use[key] = _load(name, path, through_package)
        return found
    except ValueError as error:
        raise InputError(say('detector "%1" cannot be used: %2', name, error)) from error


# Detectors that somebody holds, by what they were made of; none is held here.
_in_use: WeakValueDictionary[tuple[str, Path, int, int, bool], Detector] = WeakValueDictionary()


def _load(name: str, path: Path, through_package: bool) -> Detector:
    device = str(comfy.model_management.get_torch_device())
    pause = comfy.model_management.throw_exception_if_processing_interrupted
    if name.startswith(MEDIAPIPE):
        return MediaPipeDetector(name, path, pause)
    # Read by our own reader in every case: it refuses whatever might harm before anything else sees the file.
    blueprint = read_blueprint(path)
    if not through_package:
        try:
            return YoloDetector(name, Network(blueprint), device, pause)
        except UnknownLayer as unknown:
            reason = Sentence(str(unknown))
    if path.suffix.lower() == ".safetensors":
        raise InputError(
            say("Only .pt files go through the ultralytics package.") if through_package else reason
        )
    try:
        return UltralyticsDetector(name, path, blueprint.size, device, pause)
    except ValueError as error:
        if through_package:
            raise
        raise InputError(
            join(
                " ",
                (
                    reason,
                    Sentence(str(error)),
                    say(
                        "Install or update the package ultralytics, "
                        "or pick a detector of YOLOv8, 11 or 26, which needs none."
                    ),
                ),
            )
        ) from error


def _add_folders() -> None:
    """Makes the folders known, beside whatever another pack or extra_model_paths.yaml has made known."""
    root = os.path.join(folder_paths.models_dir, "ultralytics")
    for prefix, key in _KEYS.items():
        folder_paths.add_model_folder_path(key, os.path.join(root, prefix.rstrip("/")) if prefix else root)


def _mediapipe_files() -> list[str]:
    names = folder_paths.get_filename_list("detection")
    return [name for name in names if "mediapipe" in name.lower() and name.lower().endswith(".safetensors")]


def _full_path(key: str, file: str, name: str) -> Path:
    path = folder_paths.get_full_path(key, file)
    if path is None:
        raise InputError(
            say(
                'detector is "%1", but there is no such file in %2. Put it there and '
                "press R, or pick another detector.",
                name,
                _folder_of(key),
            )
        )
    return Path(path)


def _folder_of(key: str) -> str:
    folders = folder_paths.get_folder_paths(key)
    return os.path.join("models", os.path.relpath(folders[0], folder_paths.models_dir)) if folders else key
