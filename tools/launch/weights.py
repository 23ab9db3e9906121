"""The real weights: which file goes into which folder of ComfyUI's `models`, and which are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_HUB = "https://huggingface.co/Comfy-Org"


@dataclass(frozen=True)
class Weights:
    """One file of real weights; `folder` is below `models`, `url` where ComfyUI's own page offers it."""

    name: str
    folder: str
    url: str
    purpose: str


# The first three are one whole set. The shipped workflows name them: ComfyUI's page offers to fetch them.
BASE = Weights(
    "flux-2-klein-base-4b.safetensors",
    "diffusion_models",
    f"{_HUB}/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-base-4b.safetensors",
    "diffusion model: 20 to 50 steps, guidance about 4",
)
ENCODER = Weights(
    "qwen_3_4b.safetensors",
    "text_encoders",
    f"{_HUB}/flux2-klein/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",
    "text encoder",
)
VAE = Weights(
    "flux2-vae.safetensors",
    "vae",
    f"{_HUB}/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
    "VAE",
)
DISTILLED = Weights(
    "flux-2-klein-4b.safetensors",
    "diffusion_models",
    f"{_HUB}/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-4b.safetensors",
    "the distilled model in place of the first: 4 steps, guidance 1",
)
SET = (BASE, ENCODER, VAE)
WEIGHTS = (*SET, DISTILLED)
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
        state = f"there, {found.stat().st_size / 1e9:.1f} GB" if found else f"missing: {weights.url}"
        lines.append(f"  {weights.folder}/{weights.name} ({weights.purpose})\n    {state}")
    lines.append("klein-nano is built in and needs none of them.")
    return "\n".join(lines)


def _find(weights: Weights, models: Path) -> list[Path]:
    """Files of that name; ComfyUI looks into sub-folders, too."""
    folder = models / weights.folder
    return sorted(folder.rglob(weights.name)) if folder.is_dir() else []
