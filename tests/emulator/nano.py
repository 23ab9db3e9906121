"""Draws the emulator's pictures with klein-nano, through ComfyUI's own code in the emulator's process.

A prompt cannot be handed to the ComfyUI that waits for the emulator: it runs one prompt at a time, and that
one is waiting. So the emulator loads the same ComfyUI and the same nodes for itself.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .pictures import sign

SIDE = 128
STEPS = 20


class NanoPainter:
    """painter(prompt, width, height, seed): klein-nano's picture at 128 pixels, enlarged to the size asked
    for.
    """

    def __init__(self, comfyui: Path, root: Path) -> None:
        from tools.launch.pack import enable_comfyui, load_pack

        enable_comfyui(comfyui, ("--cpu",))
        load_pack(root)
        from kleinod.nodes.model.choices import NANO
        from kleinod.nodes.model.nodes import KleinodLoader

        self._lock = threading.Lock()
        self._set = KleinodLoader.execute(NANO, "default", "automatic", "default", "automatic", "auto").args

    def __call__(self, prompt: str, width: int, height: int, seed: int) -> np.ndarray:
        from kleinod.nodes.model.nodes import KleinodPrompt
        from kleinod.nodes.sampling.nodes import KleinodSampler

        model, clip, vae = self._set[:3]
        with self._lock, torch.inference_mode():  # as ComfyUI runs every prompt
            positive, negative = KleinodPrompt.execute(clip, prompt, "").args[:2]
            made = KleinodSampler.execute(
                model, positive, negative, vae, SIDE, SIDE, STEPS, 4.0, seed, "Default", 1
            ).args
        pixels = (made[0][0].clamp(0, 1).numpy() * 255).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        return sign(picture)
