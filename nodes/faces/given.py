"""Faces that need no detector: core's bounding boxes and masks, in every form they come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError
from ..base.sentences import Sentence, say
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
            say(
                "bounding_boxes holds lists for %1 pictures, but image holds %2: connect the "
                "boxes that were found in this very image.",
                len(rows),
                count,
            )
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


def explain_boxes(boxes: Any, picture: tuple[int, int]) -> list[Sentence]:
    """Why boxes that were given are no faces of pictures of (width, height), in a sentence; [] where all "
    "are."""
    rows = [boxes] if isinstance(boxes, Mapping) else list(boxes or ())
    flat = [box for row in rows for box in ([row] if isinstance(row, Mapping) else row)]
    if not flat:
        return [say("bounding_boxes holds no box: the node before it found nothing.")]
    lost = [box for box in flat if _face_of(box, picture) is None]
    if not lost:
        return []
    place = ", ".join(f"{lost[0].get(name)}" for name in ("x", "y", "width", "height"))
    size = f"{picture[0]}x{picture[1]}"
    if len(flat) == 1:
        return [
            say(
                "The box is empty or outside the picture of %1 (x, y, width, height: %2): connect boxes that "
                "were found in this very image.",
                size,
                place,
            )
        ]
    return [
        say(
            "%1 of %2 boxes are empty or outside the picture of %3 (x, y, width, height: %4): connect boxes "
            "that were found in this very image.",
            len(lost),
            len(flat),
            size,
            place,
        )
    ]


def explain_mask(mask: Tensor) -> list[Sentence]:
    """Why a mask marks no region, in a sentence; [] where it does."""
    highest = float(mask.max())
    if highest > LEVEL:
        small = all(int((one > LEVEL).sum()) < MIN_PIXELS for one in mask.reshape(-1, *mask.shape[-2:]))
        return [say("mask marks fewer than %1 pixels: draw a larger region.", MIN_PIXELS)] if small else []
    if highest <= 0:
        return [say("mask is empty: draw over each face, or unplug it to let the detector look.")]
    return [
        say(
            "mask is nowhere above %1 (its highest value is %2), and only what is counts: make it whiter, "
            "for example with Threshold Mask.",
            f"{LEVEL:g}",
            f"{highest:.2f}",
        )
    ]


def _face_of(box: Any, picture: tuple[int, int]) -> Face | None:
    try:
        x, y, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
        score = float(box.get("score", 1.0))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            say(
                "bounding_boxes holds %1, but a box needs the numbers x, y, width and height: "
                "connect a node with a BOUNDING_BOX output.",
                str(box)[:80],
            )
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
