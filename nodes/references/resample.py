"""Lanczos in float: one part of a picture to a new, smaller size, without steps of 8 bits between.

Windowed sinc with three lobes, widened by the scale so that nothing aliases: the filter of Pillow's
`Image.resize(size, LANCZOS, box)`, whose results this equals to float precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LOBES = 3


def resize(picture: Tensor, box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """`[H, W, C]` float -> `[height, width, C]` of the part `box` (left, top, right, bottom, fractions
    allowed) of the picture, clamped to 0..1: the filter overshoots at hard edges.
    """
    left, top, right, bottom = box
    low = _resize_rows(picture, top, bottom, size[1])
    turned = _resize_rows(low.transpose(0, 1), left, right, size[0])
    return turned.transpose(0, 1).clamp(0.0, 1.0).contiguous()


def _resize_rows(picture: Tensor, start: float, end: float, count: int) -> Tensor:
    """`[H, ...]` -> `[count, ...]`, every new row a weighted sum of old ones."""
    length = picture.shape[0]
    if start == 0 and end == length == count:
        return picture
    taps, weights = _weights(length, start, end, count)
    rows = picture.reshape(length, -1)
    sums = functional.embedding_bag(taps, rows, per_sample_weights=weights.to(rows.dtype), mode="sum")
    return sums.reshape(count, *picture.shape[1:])


def _weights(length: int, start: float, end: float, count: int) -> tuple[Tensor, Tensor]:
    """Source positions `[count, taps]` and their weights, which add up to 1 in every row.

    Positions beyond the picture's edge get weight 0: the rest of the row stands for them.
    """
    step = (end - start) / count
    widened = max(1.0, step)
    reach = LOBES * widened
    centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * step
    first = torch.floor(centres - reach).long()
    taps = first[:, None] + torch.arange(int(2 * reach) + 2)
    distance = (taps + 0.5 - centres[:, None]) / widened
    weights = torch.sinc(distance) * torch.sinc(distance / LOBES)
    inside = (distance.abs() < LOBES) & (taps >= 0) & (taps < length)
    weights = torch.where(inside, weights, 0.0)
    return taps.clamp(0, length - 1), weights / weights.sum(dim=1, keepdim=True)
