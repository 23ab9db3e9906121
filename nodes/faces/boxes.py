"""Boxes: overlap, suppression of duplicates, and the tiles a large picture is searched in.

Boxes are tensors `[N, 4]` of x0, y0, x1, y1 in pixels.
"""

from __future__ import annotations

import math

import torch

SAME_FACE = 0.45  # intersection over union from which two boxes show one face
INSIDE = 0.8  # share of the smaller box inside the larger from which it may be a part of the same face
MAX_TILES = 64
OVERLAP = 0.25


def shared_area(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Area of every intersection, `[N, M]`."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union, `[N, M]`."""
    shared = shared_area(a, b)
    return shared / (area(a)[:, None] + area(b)[None] - shared).clamp(min=1e-9)


def suppress(boxes: torch.Tensor, scores: torch.Tensor, limit: float) -> torch.Tensor:
    """Indices of the boxes to keep, best first: none overlaps a better one by more than `limit`."""
    order = scores.argsort(descending=True, stable=True)
    clashes = overlap(boxes[order], boxes[order]) > limit
    kept: list[int] = []
    alive = torch.ones(len(order), dtype=torch.bool)
    for place in range(len(order)):
        if alive[place]:
            kept.append(place)
            alive &= ~clashes[place]
    return order[torch.tensor(kept, dtype=torch.long)]


def merge(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Indices of the distinct faces, best first, among boxes of several searches of one picture.

    Besides duplicates, a box that is the only one inside another of nearly its score is dropped: the part of
    a face that one tile took for a whole one. A box around several others is a group, not a face that they
    are parts of, and stays out of this.
    """
    kept = suppress(boxes, scores, SAME_FACE)
    boxes, scores = boxes[kept], scores[kept]
    within = shared_area(boxes, boxes) / area(boxes)[:, None].clamp(min=1e-9) > INSIDE  # row inside column
    within &= area(boxes)[:, None] < area(boxes)[None]
    alone = within.sum(dim=0) == 1
    parts = (within & alone[None] & (scores[None] >= 0.75 * scores[:, None])).any(dim=1)
    return kept[~parts]


def tiles(height: int, width: int, side: int) -> list[tuple[int, int, int, int]]:
    """Overlapping squares of about `side` pixels over a picture; none where the whole is hardly larger.

    A face up to a quarter of a tile lies whole in one of them. Never more than MAX_TILES: tiles of huge
    pictures grow instead.
    """
    if max(height, width) <= 1.25 * side:
        return []
    while True:
        rows, columns = _starts(height, side), _starts(width, side)
        if len(rows) * len(columns) <= MAX_TILES:
            return [(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]
        side = math.ceil(side * 1.25)


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def touches_inner_edge(
    boxes: torch.Tensor, tile: tuple[int, int, int, int], height: int, width: int, margin: float = 2.0
) -> torch.Tensor:
    """Which boxes, in pixels of the picture, end with the tile though the picture goes on: cut faces."""
    left, top, right, bottom = tile
    cut = torch.zeros(len(boxes), dtype=torch.bool)
    if left > 0:
        cut |= boxes[:, 0] < left + margin
    if top > 0:
        cut |= boxes[:, 1] < top + margin
    if right < width:
        cut |= boxes[:, 2] > right - margin
    if bottom < height:
        cut |= boxes[:, 3] > bottom - margin
    return cut
