"""What of a crop may be painted, and what of the painting comes into the picture.

Two masks a face. The denoise mask, in latent cells, is generous: the model paints a margin around the face,
so that nothing it does at its edge is ever seen. The composite mask, in pixels of the picture, is smaller:
the face's oval or outline, grown by the padding, fading inwards from there. Beyond it no pixel changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..base.values import MASK_PERCENT, FaceRefinement
from .detection import Face
from .geometry import CELL, Box, Crop, grow_box, longer_side

MARGIN = 0.12
"""What the model paints beyond the composite mask, as a share of the face."""
FULL_CENTRE = 0.7
"""A blur wider than the mask is cut so that this share of the way to its middle still fades."""


@dataclass(frozen=True)
class Softness:
    """Padding and blur of one face, in pixels of the picture."""

    padding: float
    blur: float

    @classmethod
    def of(cls, settings: FaceRefinement, box: Box) -> Softness:
        unit = longer_side(box) / 100 if settings.mask_unit == MASK_PERCENT else 1.0
        return cls(settings.mask_padding * unit, settings.mask_blur * unit)


@dataclass(frozen=True)
class Masks:
    """composite: float32 `[h, w]` over the crop, in pixels of the picture; 0 is untouched. denoise: float32
    `[target_height / 16, target_width / 16]`, 1 wherever the composite mask reaches. ring: bool `[h, w]`,
    what the model painted (or, failing that, kept) just outside the composite mask."""

    composite: Tensor
    denoise: Tensor
    ring: Tensor


def reach_of(box: Box, softness: Softness) -> Box:
    """All that the model may paint: the face with its padding and the margin."""
    return grow_box(box, math.ceil(softness.padding + MARGIN * longer_side(box)))


def draw_masks(face: Face, crop: Crop, softness: Softness, picture: tuple[int, int]) -> Masks:
    """The masks of a face in its crop of a picture of (width, height)."""
    shape = _outline(face, crop) if face.mask is not None else _oval(face.box, crop)
    grown = _grow(shape, softness.padding)
    composite = _fade_inwards(grown, softness.blur, _open_sides(crop, picture))
    margin = max(MARGIN * longer_side(face.box), CELL / float(crop.scale))
    painted = torch.from_numpy(_grow(grown, margin))
    cells = crop.target_height // CELL, crop.target_width // CELL
    denoise = functional.adaptive_avg_pool2d(painted[None].float(), cells)
    covered = functional.adaptive_max_pool2d((composite > 0)[None].float(), cells)
    outside = composite == 0
    ring = painted & outside
    if int(ring.sum()) < 16:
        ring = outside
    return Masks(composite, torch.maximum(denoise, covered)[0], ring)


def _oval(box: Box, crop: Crop) -> np.ndarray:
    """The ellipse inscribed in a box, bool `[h, w]`: pixels whose middle lies in it."""
    x = np.arange(crop.left, crop.left + crop.width) + 0.5
    y = np.arange(crop.top, crop.top + crop.height) + 0.5
    across = (x - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    down = (y - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    return across[None, :] ** 2 + down[:, None] ** 2 <= 1


def _outline(face: Face, crop: Crop) -> np.ndarray:
    outline = face.mask[crop.region].detach().cpu().numpy() > 0.5
    return outline if outline.any() else _oval(face.box, crop)


def _open_sides(crop: Crop, picture: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """left, top, right, bottom: where the crop ends inside the picture, so the mask must have faded."""
    return (
        crop.left > 0,
        crop.top > 0,
        crop.left + crop.width < picture[0],
        crop.top + crop.height < picture[1],
    )


def _grow(shape: np.ndarray, margin: float) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt  # comes with ComfyUI; slow to import

    if margin <= 0 or not shape.any():
        return shape
    return distance_transform_edt(~shape) <= margin


def _fade_inwards(shape: np.ndarray, blur: float, open_sides: tuple[bool, bool, bool, bool]) -> Tensor:
    """1 inside, falling smoothly to 0 at the edge within `blur` pixels.

    The edge of the picture is no edge of the mask: a face cut by it stays whole there.
    """
    from scipy.ndimage import distance_transform_edt

    left, top, right, bottom = (int(side) for side in open_sides)
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
