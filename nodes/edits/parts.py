"""The parts of a mask that are painted, each in one piece: what lies near another belongs to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..regions.geometry import Box, grow_box, intersects, longer_side

LEAST = 0.02
"""Share of the painting that counts: what a mask marks less than this no eye would see."""
NEAR = 0.25
"""Parts whose boxes come this near, as a share of their longer sides, are one thing: letters, leaves."""
MAX_PARTS = 64
MAX_SPECKS = 1024
"""So many connected parts are a texture, not things."""

AUTOMATIC, APART, TOGETHER = "automatic", "apart", "together"
SPLITS = (AUTOMATIC, APART, TOGETHER)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a mask. box: around it, in pixels. weights: float32 `[h, w]` in its box, the mask's values
    in it and 0 elsewhere."""

    box: Box
    weights: Tensor

    @property
    def side(self) -> float:
        """Side of a square as large as its box, of which percents are counted."""
        return math.sqrt((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def find_parts(mask: Tensor, split: str) -> list[Part]:
    """The parts of one mask `[H, W]`, from left to right; [] where nothing is marked.

    apart: what is connected. automatic: what is connected or near each other. together: all in one. More than
    64 parts, or a thousand specks, are painted together.
    """
    from scipy.ndimage import find_objects, label  # comes with ComfyUI; slow to import

    values = mask.detach().cpu().float()
    inside = values.numpy() >= LEAST
    if not inside.any():
        return []
    if split == TOGETHER:
        return [_cut(values, inside)]
    numbered, count = label(inside, structure=np.ones((3, 3)))
    if count > MAX_SPECKS:
        return [_cut(values, inside)]
    boxes = [_box_of(*slices) for slices in find_objects(numbered)]
    groups = [[number] for number in range(count)]
    if split == AUTOMATIC:
        groups = _join_near(boxes)
    if len(groups) > MAX_PARTS:
        return [_cut(values, inside)]
    parts = []
    for group in groups:
        names = np.zeros(count + 1, bool)
        names[[number + 1 for number in group]] = True
        parts.append(_cut(values, names[numbered]))
    return sorted(parts, key=lambda part: (part.box[0] + part.box[2], part.box[1]))


def _cut(values: Tensor, inside: np.ndarray) -> Part:
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    weights = torch.where(torch.from_numpy(inside[window]), values[window], 0.0)
    return Part(_box_of(*window), weights)


def _box_of(rows: slice, columns: slice) -> Box:
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)


def _join_near(boxes: Sequence[Box]) -> list[list[int]]:
    """Numbers of boxes that are near each other, group by group; a group is near as a whole."""
    groups = [([number], box) for number, box in enumerate(boxes)]
    joined = True
    while joined:
        joined = False
        merged: list[tuple[list[int], Box]] = []
        for numbers, box in groups:
            mine = grow_box(box, NEAR * longer_side(box))
            home = next((i for i, (_, other) in enumerate(merged) if _is_near(mine, other)), None)
            if home is None:
                merged.append((numbers, box))
                continue
            kept, other = merged[home]
            around = (
                min(box[0], other[0]),
                min(box[1], other[1]),
                max(box[2], other[2]),
                max(box[3], other[3]),
            )
            merged[home] = (kept + numbers, around)
            joined = True
        groups = merged
    return [numbers for numbers, _ in groups]


def _is_near(grown: Box, other: Box) -> bool:
    return intersects(grown, grow_box(other, NEAR * longer_side(other)))
