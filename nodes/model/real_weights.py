"""The real weights: which file goes into which folder of ComfyUI's `models`, and where it comes from.

The one place of these names: the loader's page, the shipped workflows and `run.py` read it, the last without
ComfyUI and PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.flux2 import KLEIN_4B

_HUB = "https://huggingface.co/Comfy-Org"


@dataclass(frozen=True)
class Weights:
    """One file of real weights; `folder` is below `models`, `url` where ComfyUI's own page offers it."""

    name: str
    folder: str
    url: str
    purpose: str
    gigabytes: float


# The first three are one whole set. The shipped workflows name them: ComfyUI's page offers to fetch them.
BASE = Weights(
    "flux-2-klein-base-4b.safetensors",
    "diffusion_models",
    f"{_HUB}/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-base-4b.safetensors",
    "diffusion model: 20 to 50 steps, guidance about 4",
    7.8,
)
ENCODER = Weights(
    KLEIN_4B.encoder_file,
    "text_encoders",
    f"{_HUB}/flux2-klein/resolve/main/split_files/text_encoders/{KLEIN_4B.encoder_file}",
    "text encoder",
    8.0,
)
VAE = Weights(
    "flux2-vae.safetensors",
    "vae",
    f"{_HUB}/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
    "VAE",
    0.3,
)
DISTILLED = Weights(
    "flux-2-klein-4b.safetensors",
    "diffusion_models",
    f"{_HUB}/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-4b.safetensors",
    "the distilled model in place of the first: 4 steps, guidance 1",
    7.8,
)
SET = (BASE, ENCODER, VAE)
WEIGHTS = (*SET, DISTILLED)
