"""Between Pillow's pictures and ComfyUI's IMAGE, for everything the pack draws itself."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_picture(frame: Tensor) -> Image.Image:
    """RGB picture of one frame `[H, W, C]`, values clamped to 0..1, further channels left out."""
    pixels = (frame[..., :3].detach().cpu().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def to_image(picture: Image.Image) -> Tensor:
    """IMAGE `[1, H, W, 3]`, float32 in 0..1, of an RGB picture."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
