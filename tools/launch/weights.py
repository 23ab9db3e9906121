"""The real weights: which file goes into which folder of ComfyUI's `models`, and which are there."""

from __future__ import annotations

import sys
import types
from pathlib import Path

from .environment import ROOT

# The pack itself needs ComfyUI; this part of it does not, under a name of its own.
_pure = sys.modules.setdefault("kleinod_launch", types.ModuleType("kleinod_launch"))
_pure.__path__ = [str(ROOT / "nodes")]

from kleinod_launch.model.real_weights import (  # type: ignore[import-not-found]  # noqa: E402
    BASE,
    DISTILLED,
    ENCODER,
    SET,
    VAE,
    WEIGHTS,
    Weights,
)

__all__ = ["BASE", "DISTILLED", "ENCODER", "FOLDERS", "SET", "VAE", "WEIGHTS", "Weights"]


# Those that Kleinod's nodes pick files from; ComfyUI makes none of them under a new base directory.
FOLDERS = ("diffusion_models", "text_encoders", "vae", "loras", "ultralytics/bbox", "ultralytics/segm")


def make_folders(models: Path) -> None:
    for name in FOLDERS:
        (models / name).mkdir(parents=True, exist_ok=True)


def describe_weights(places: list[Path]) -> str:
    """Where each file goes, and whether it is there already, in lines.

    places: folders like ComfyUI's `models`; the first is where a missing file is asked for.
    """
    lines = [f"Models go into {places[0]}:"]
    for weights in WEIGHTS:
        found = next((file for place in places for file in _find(weights, place)), None)
        state = (
            f"there, {found.stat().st_size / 1e9:.1f} GB"
            if found
            else f"missing, {weights.gigabytes:g} GB: {weights.url}"
        )
        lines.append(f"  {weights.folder}/{weights.name} ({weights.purpose})\n    {state}")
    lines.append("klein-nano is built in and needs none of them.")
    return "\n".join(lines)


def _find(weights: Weights, models: Path) -> list[Path]:
    """Files of that name; ComfyUI looks into sub-folders, too."""
    folder = models / weights.folder
    return sorted(folder.rglob(weights.name)) if folder.is_dir() else []
