"""Faces that need no detector: core's bounding boxes and masks, in every form they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError
from ..regions.components import fit_masks, split_mask
from .detection import Face


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
    masks = fit_masks(mask, count, picture)
    if len(mask) == 1 or mask.ndim == 2:
        return [_faces_of(masks[0])] * count
    return [_faces_of(one) for one in masks]


def outline_with_mask(
    faces: Sequence[list[Face]], mask: Tensor, picture: tuple[int, int]
) -> list[list[Face]]:
    """The same faces, each with the part of the mask in its box as outline; without any, it stays an oval."""
    masks = fit_masks(mask, len(faces), picture)
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


def _faces_of(mask: Tensor) -> list[Face]:
    return [Face(part.box, mask=part.outline, label="mask") for part in split_mask(mask)]


def _outlined(face: Face, mask: Tensor) -> Face:
    left, top, right, bottom = (round(edge) for edge in face.box)
    outline = torch.zeros_like(mask)
    outline[top:bottom, left:right] = mask[top:bottom, left:right]
    return Face(face.box, face.score, outline, face.label) if bool((outline > 0.5).any()) else face
