"""Faces that need no detector: core's bounding boxes and masks, in every form they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError
from ..regions.components import LEVEL, MIN_PIXELS, fit_masks, split_mask
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


def explain_boxes(boxes: Any, picture: tuple[int, int]) -> list[str]:
    """Why boxes that were given are no faces of pictures of (width, height), in a sentence; [] where all "
    "are."""
    rows = [boxes] if isinstance(boxes, Mapping) else list(boxes or ())
    flat = [box for row in rows for box in ([row] if isinstance(row, Mapping) else row)]
    if not flat:
        return ["bounding_boxes holds no box: the node before it found nothing."]
    lost = [box for box in flat if _face_of(box, picture) is None]
    if not lost:
        return []
    many = f"{len(lost)} of {len(flat)} boxes are" if len(flat) > 1 else "The box is"
    place = ", ".join(f"{lost[0].get(name)}" for name in ("x", "y", "width", "height"))
    return [
        f"{many} empty or outside the picture of {picture[0]}x{picture[1]} (x, y, width, height: {place}): "
        "connect boxes that were found in this very image."
    ]


def explain_mask(mask: Tensor) -> list[str]:
    """Why a mask marks no region, in a sentence; [] where it does."""
    highest = float(mask.max())
    if highest > LEVEL:
        small = all(int((one > LEVEL).sum()) < MIN_PIXELS for one in mask.reshape(-1, *mask.shape[-2:]))
        return [f"mask marks fewer than {MIN_PIXELS} pixels: draw a larger region."] if small else []
    if highest <= 0:
        return ["mask is empty: draw over each face, or unplug it to let the detector look."]
    return [
        f"mask is nowhere above {LEVEL:g} (its highest value is {highest:.2f}), and only what is counts: "
        "make it whiter, for example with Threshold Mask."
    ]


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
