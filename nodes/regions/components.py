"""Masks as they come in, and the separate regions that one of them marks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..base.errors import InputError
from ..base.sentences import say
from .geometry import Box

LEVEL = 0.5
"""A pixel above this belongs to a region."""
MIN_PIXELS = 16
"""Smaller specks of a mask are dust."""
MAX_REGIONS = 256


@dataclass(frozen=True, eq=False)
class Component:
    """One connected part of a mask. box: around it. outline: float32 `[H, W]`, 1 in it and 0 elsewhere."""

    box: Box
    outline: Tensor


def fit_masks(mask: Tensor, count: int, picture: tuple[int, int]) -> Tensor:
    """A MASK `[B or 1, H, W]` or `[H, W]` as `[count, height, width]` of pictures of (width, height).

    Raises InputError for another number of masks, another number of axes, and values that are no numbers.
    """
    if mask.ndim not in (2, 3, 4) or not mask.numel():
        raise InputError(
            say(
                "%1 has the shape %2, but must be a mask [batch, height, width]: connect a MASK.",
                "mask",
                list(mask.shape),
            )
        )
    masks = mask.detach().reshape(-1, *mask.shape[-2:]).float()
    if not bool(torch.isfinite(masks).all()):
        raise InputError(
            say("%1 holds values that are not numbers (NaN): look at the node before it.", "mask")
        )
    if len(masks) not in (1, count):
        raise InputError(
            say(
                "mask holds %1 masks, but image holds %2 pictures: connect one mask, or one each.",
                len(masks),
                count,
            )
        )
    return resize_masks(masks, picture).expand(count, picture[1], picture[0])


def resize_masks(masks: Tensor, picture: tuple[int, int]) -> Tensor:
    """Masks `[N, h, w]` laid over pictures of (width, height), in 0..1. Made smaller they keep all that was
    marked, be it a line one pixel wide."""
    width, height = picture
    masks = masks.float().clamp(0, 1)
    shrunk = min(masks.shape[1], height), min(masks.shape[2], width)
    if tuple(masks.shape[1:]) != shrunk:
        masks = functional.adaptive_max_pool2d(masks[:, None], shrunk)[:, 0]
    if shrunk != (height, width):
        masks = functional.interpolate(masks[:, None], (height, width), mode="bilinear")[:, 0]
    return masks


def split_mask(mask: Tensor) -> list[Component]:
    """The connected regions of one mask `[H, W]` above LEVEL, largest first, without specks."""
    from scipy.ndimage import find_objects, label  # comes with ComfyUI; slow to import

    inside = mask.detach().cpu().numpy() > LEVEL
    numbered, found = label(inside, structure=np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=found + 1)[1:]
    boxes = find_objects(numbered)
    largest = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= MIN_PIXELS][:MAX_REGIONS]
    components = []
    for index in largest:
        rows, columns = boxes[index]
        outline = torch.from_numpy((numbered == index + 1).astype(np.float32))
        box = float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)
        components.append(Component(box, outline))
    return components
