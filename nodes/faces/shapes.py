"""The shape of a face in its crop, and how the edge of its mask lies."""

from __future__ import annotations

import numpy as np

from ..base.values import MASK_PERCENT, FaceRefinement
from ..regions.geometry import Box, Crop, longer_side
from ..regions.masks import MaskEdge, draw_oval
from .detection import Face


def edge_of(settings: FaceRefinement, box: Box) -> MaskEdge:
    """Padding and blur for a face in `box`, in pixels of the picture, whichever unit the settings count "
    "in."""
    unit = longer_side(box) / 100 if settings.mask_unit == MASK_PERCENT else 1.0
    return MaskEdge(settings.mask_padding * unit, settings.mask_blur * unit)


def shape_of(face: Face, crop: Crop) -> np.ndarray:
    """Bool `[h, w]` over the crop: the face's outline where the detector drew one, else its oval."""
    if face.mask is not None:
        outline = face.mask[crop.region].detach().cpu().numpy() > 0.5
        if outline.any():
            return outline
    return draw_oval(face.box, crop)
