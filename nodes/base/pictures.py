"""The one gate for pictures and masks that come in from other nodes, whichever node of ours they reach.

Pictures are IMAGE frames `[H, W, C]`, masks `[h, w]`. What cannot be a picture is refused in a sentence that
names the input; what can is brought to float32 in 0..1 on the CPU, three channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .errors import InputError
from .sentences import Sentence, say

BACKGROUNDS = {"white": 1.0, "grey": 0.5, "black": 0.0}
# Resampling overshoots a little beyond 1; beyond this, values count from 0 to 255.
_MAX_OVERSHOOT = 16.0


def check_image(image: Any, label: str = "image") -> None:
    """Raises InputError unless `image` is an IMAGE `[B, H, W, C]` of 1 to 4 channels with a frame in it."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[-1] not in (1, 2, 3, 4):
        shape = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(
            say(
                "%1 has the shape %2, but must be colour pictures [batch, height, width, 3]: connect "
                "an IMAGE.",
                label,
                shape,
            )
        )
    if not image.numel():
        raise InputError(
            say(
                "%1 is empty: its shape is %2. Check the node before it, or unplug it.",
                label,
                list(image.shape),
            )
        )


def take_pictures(image: Any, label: str = "image") -> tuple[Tensor, list[Sentence]]:
    """Colour pictures, with alpha or without, that are to keep every bit nobody paints: the very tensor given
    where it holds floats in 0..1, else as float32 in 0..1. And, in sentences, what was done to it. Grey ones
    become colour, their alpha stays.

    Raises InputError as `check_image` and `to_unit` do.
    """
    check_image(image, label)
    words: list[Sentence] = []
    clean = to_unit(image, label, words)
    usable = image.is_floating_point() and not words
    pictures = image if usable else clean
    if image.shape[-1] in (1, 2):
        colour = pictures[..., :1].expand(*pictures.shape[:-1], 3)
        pictures = torch.cat([colour, pictures[..., 1:]], dim=-1)
    return pictures, [say("%1 came with %2.", label, word) for word in words]


def to_unit(pixels: Tensor, label: str, notes: list[Sentence]) -> Tensor:
    """`pixels` of any shape as float32 on the CPU, in 0..1. Whole numbers count from 0 to 255; overshoots are
    clamped, larger ones with a word in `notes`.

    Raises InputError for values that are no numbers, and for floats as large as 255.
    """
    values = pixels.detach().to("cpu", torch.float32)
    if not pixels.is_floating_point():
        values = values / 255
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            say(
                "%1 holds values that are not numbers (NaN or infinity): look at the node before it. A "
                "black picture out of a VAE is a common cause; try its fp32 precision.",
                label,
            )
        )
    low, high = float(values.min()), float(values.max())
    if high > _MAX_OVERSHOOT:
        raise InputError(
            say(
                "%1 holds values up to %2, but images range from 0 to 1: divide by 255 in the node "
                "that made it.",
                label,
                f"{high:g}",
            )
        )
    if low < 0 or high > 1:
        values = values.clamp(0, 1)
        if low < -0.01 or high > 1.01:
            notes.append(say("values from %1 to %2 clamped to 0..1", f"{low:.2f}", f"{high:.2f}"))
    return values


def to_rgb(values: Tensor, background: str, notes: list[Sentence]) -> Tensor:
    """`[..., C]` in 0..1 -> `[..., 3]`: one channel is grey, two are grey and alpha; alpha is laid on the
    background, one of BACKGROUNDS."""
    channels = values.shape[-1]
    if channels == 3:
        return values
    if channels == 1:
        return values.expand(*values.shape[:-1], 3)
    alpha = values[..., -1:]
    colour = values[..., :-1].expand(*values.shape[:-1], 3)
    if bool((alpha == 1).all()):
        return colour
    notes.append(say("transparency laid on %1", background))
    return torch.lerp(torch.full_like(colour, BACKGROUNDS[background]), colour, alpha)


def check_mask(mask: Any, label: str) -> None:
    """Raises InputError unless `mask` is a MASK `[H, W]`, `[B, H, W]` or `[B, 1, H, W]` of numbers."""
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3, 4) or not mask.numel():
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(
            say(
                "%1 has the shape %2, but must be a mask [batch, height, width]: connect a MASK.",
                label,
                shape,
            )
        )
    if not bool(torch.isfinite(mask.float()).all()):
        raise InputError(
            say("%1 holds values that are not numbers (NaN): look at the node before it.", label)
        )


def fit_mask(mask: Tensor, size: tuple[int, int], label: str) -> Tensor:
    """`[h, w]` -> `[H, W]` of (width, height) in 0..1. An all-black one may have any shape: Load Image gives
    64 x 64. label: of the picture it belongs to."""
    width, height = size
    check_mask(mask, f"The mask of {label}")
    mask = mask.detach().to("cpu", torch.float32).clamp(0, 1)
    if tuple(mask.shape) == (height, width) or not mask.any():
        return mask if tuple(mask.shape) == (height, width) else mask.new_zeros(height, width)
    rows, columns = mask.shape
    if abs(columns * height - rows * width) > 0.02 * rows * width:
        raise InputError(
            say(
                "The mask of %1 is %2x%3, but the image is %4x%5, another shape: "
                "draw the mask on this image, or resize both alike.",
                label,
                columns,
                rows,
                width,
                height,
            )
        )
    return functional.interpolate(
        mask[None, None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0, 0].clamp(0, 1)
