"""Which face detectors there are, and loading the picked one: model folders, devices, back ends."""

from __future__ import annotations

from .detection import Detector

NANO_FACES = "klein-nano faces (built in)"


def list_detectors() -> list[str]:
    """What a user may pick; the first is the best default."""
    return [NANO_FACES]


def load_detector(name: str) -> Detector:
    """The detector of that name; ValueError in one sentence when it is missing or cannot be read."""
    raise NotImplementedError(name)
