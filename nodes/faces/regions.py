"""Faces that need no detector: core's bounding boxes and masks, in every form they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..base.errors import InputError
from .detection import Face

LEAST_PIXELS = 16
"""Smaller specks of a mask are dust."""
MOST_REGIONS = 256


def faces_from_boxes(boxes: Any, count: int, picture: tuple[int, int]) -> list[list[Face]]:
    """Faces of `count` pictures of (width, height) from BOUNDING_BOX values.

    boxes: one box `{"x", "y", "width", "height"}`, a list of them (the same for every picture), or a list of
    such lists, one a picture. What of a box lies outside the picture is cut off; empty boxes are dropped.
    """
    rows = [boxes] if isinstance(boxes, Mapping) else list(boxes or ())
    if not rows or isinstance(rows[0], Mapping):
        rows = [rows]
    if len(rows) == 1:
        rows = rows * count
    if len(rows) != count:
        raise InputError(
            f"bounding_boxes holds lists for {len(rows)} pictures, but image holds {count}: connect the "
            "boxes that were found in this very image."
        )
    return [[face for box in row if (face := _face_of(box, picture)) is not None] for row in rows]


def faces_from_mask(mask: Tensor, count: int, picture: tuple[int, int]) -> list[list[Face]]:
    """One face for every separate region of a MASK `[B or 1, H, W]` (above 0.5), largest first."""
    masks = _fit_mask(mask, count, picture)
    if len(mask) == 1 or mask.ndim == 2:
        return [_regions(masks[0])] * count
    return [_regions(one) for one in masks]


def outline_with_mask(
    faces: Sequence[list[Face]], mask: Tensor, picture: tuple[int, int]
) -> list[list[Face]]:
    """The same faces, each with the part of the mask in its box as outline; without any, it stays an oval."""
    masks = _fit_mask(mask, len(faces), picture)
    return [[_outlined(face, masks[index]) for face in row] for index, row in enumerate(faces)]


def _face_of(box: Any, picture: tuple[int, int]) -> Face | None:
    try:
        x, y, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
        score = float(box.get("score", 1.0))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"bounding_boxes holds {str(box)[:80]}, but a box needs the numbers x, y, width and height: "
            "connect a node with a BOUNDING_BOX output."
        ) from error
    edges = (max(0.0, x), max(0.0, y), min(x + width, picture[0]), min(y + height, picture[1]))
    if not (edges[2] > edges[0] and edges[3] > edges[1]):  # also drops not-a-number
        return None
    return Face(edges, score, label=str(box.get("label", "face")))


def _fit_mask(mask: Tensor, count: int, picture: tuple[int, int]) -> Tensor:
    masks = mask.reshape(-1, *mask.shape[-2:]).float()
    if len(masks) not in (1, count):
        raise InputError(
            f"mask holds {len(masks)} masks, but image holds {count} pictures: connect one mask, or one each."
        )
    size = (picture[1], picture[0])
    if tuple(masks.shape[-2:]) != size:
        masks = functional.interpolate(masks[:, None], size, mode="bilinear")[:, 0]
    return masks.expand(count, *size)


def _regions(mask: Tensor) -> list[Face]:
    from scipy.ndimage import find_objects, label  # comes with ComfyUI; slow to import

    inside = mask.detach().cpu().numpy() > 0.5
    numbered, found = label(inside, structure=np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=found + 1)[1:]
    boxes = find_objects(numbered)
    largest = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= LEAST_PIXELS][:MOST_REGIONS]
    faces = []
    for index in largest:
        rows, columns = boxes[index]
        outline = torch.from_numpy((numbered == index + 1).astype(np.float32))
        box = tuple(float(edge) for edge in (columns.start, rows.start, columns.stop, rows.stop))
        faces.append(Face(box, mask=outline, label="mask"))
    return faces


def _outlined(face: Face, mask: Tensor) -> Face:
    left, top, right, bottom = (round(edge) for edge in face.box)
    outline = torch.zeros_like(mask)
    outline[top:bottom, left:right] = mask[top:bottom, left:right]
    return Face(face.box, face.score, outline, face.label) if bool((outline > 0.5).any()) else face
