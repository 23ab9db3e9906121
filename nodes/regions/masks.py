"""What of a crop may be painted, and what of the painting comes into the picture.

Two masks a region. The denoise mask, in latent cells, is generous: the model paints a margin around the
shape, so that nothing it does at its edge is ever seen. The composite mask, in pixels of the picture, is
smaller: the shape grown by the padding, fading inwards from there. Beyond it no pixel changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..base.flux2 import CELL
from .geometry import Box, Crop, grow_box, longer_side

MARGIN = 0.12
"""What the model paints beyond the composite mask, as a share of the region."""
FULL_CENTRE = 0.7
"""A blur wider than the mask is cut so that this share of the way to its middle still fades."""
MIN_RING = 16
"""Pixels; a smaller ring tells nothing of the colours around it."""


@dataclass(frozen=True)
class MaskEdge:
    """How the edge of a region lies, in pixels of the picture.

    padding: how far beyond its shape anything may change. blur: width of the transition, inwards from there.
    """

    padding: float
    blur: float


@dataclass(frozen=True)
class Masks:
    """composite: float32 `[h, w]` over the crop, in pixels of the picture; 0 is untouched. denoise: float32
    `[target_height / 16, target_width / 16]`, 1 wherever the composite mask reaches. ring: bool `[h, w]`,
    what the model painted (or, failing that, kept) just outside the composite mask."""

    composite: Tensor
    denoise: Tensor
    ring: Tensor


def reach_of(box: Box, edge: MaskEdge) -> Box:
    """All that the model may paint: the box with its padding and the margin."""
    return grow_box(box, math.ceil(edge.padding + MARGIN * longer_side(box)))


def draw_masks(
    shape: np.ndarray, longest: float, crop: Crop, edge: MaskEdge, picture: tuple[int, int]
) -> Masks:
    """The masks of a region in its crop of a picture of (width, height).

    shape: bool `[h, w]` over the crop, what is to change. longest: the region's longer side in pixels, of
    which the margin is a share.
    """
    grown = grow(shape, edge.padding)
    composite = fade_inwards(grown, edge.blur, open_sides(crop, picture))
    return masks_around(composite, grown, longest, crop)


def masks_around(composite: Tensor, grown: np.ndarray, longest: float, crop: Crop) -> Masks:
    """The three masks of a composite mask `[h, w]` drawn by whoever calls. grown: bool `[h, w]`, its shape;
    what the model paints lies a margin around it."""
    margin = max(MARGIN * longest, CELL / float(crop.scale))
    painted = torch.from_numpy(grow(grown, margin))
    cells = crop.target_height // CELL, crop.target_width // CELL
    denoise = functional.adaptive_avg_pool2d(painted[None].float(), cells)
    covered = functional.adaptive_max_pool2d((composite > 0)[None].float(), cells)
    outside = composite == 0
    ring = painted & outside
    if int(ring.sum()) < MIN_RING:
        ring = outside
    return Masks(composite, torch.maximum(denoise, covered)[0], ring)


def draw_oval(box: Box, crop: Crop) -> np.ndarray:
    """The ellipse inscribed in a box, bool `[h, w]` over the crop: pixels whose middle lies in it."""
    x = np.arange(crop.left, crop.left + crop.width) + 0.5
    y = np.arange(crop.top, crop.top + crop.height) + 0.5
    across = (x - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    down = (y - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    return across[None, :] ** 2 + down[:, None] ** 2 <= 1


def open_sides(crop: Crop, picture: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """left, top, right, bottom: where the crop ends inside the picture, so the mask must have faded."""
    return (
        crop.left > 0,
        crop.top > 0,
        crop.left + crop.width < picture[0],
        crop.top + crop.height < picture[1],
    )


def grow(shape: np.ndarray, margin: float) -> np.ndarray:
    """A bool mask and all that lies within `margin` pixels of it."""
    from scipy.ndimage import distance_transform_edt  # comes with ComfyUI; slow to import

    if margin <= 0 or not shape.any():
        return shape
    return distance_transform_edt(~shape) <= margin


def fade_inwards(shape: np.ndarray, blur: float, sides: tuple[bool, bool, bool, bool]) -> Tensor:
    """1 inside, falling smoothly to 0 at the edge within `blur` pixels; float32 `[h, w]`.

    sides: `open_sides`. The edge of the picture is no edge of the mask: what it cuts stays whole there.
    """
    from scipy.ndimage import distance_transform_edt

    left, top, right, bottom = (int(side) for side in sides)
    padded = np.pad(shape, ((top, bottom), (left, right)))
    if not padded.any() or padded.all():
        return torch.from_numpy(shape.astype(np.float32))
    depth = distance_transform_edt(padded) - 0.5
    depth = depth[top : depth.shape[0] - bottom, left : depth.shape[1] - right]
    blur = min(blur, FULL_CENTRE * float(depth.max()))
    if blur <= 0.5:
        return torch.from_numpy(shape.astype(np.float32))
    ramp = np.clip(depth / blur, 0, 1)
    return torch.from_numpy((ramp * ramp * (3 - 2 * ramp)).astype(np.float32))
