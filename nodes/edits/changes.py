"""What an edit changed: a mask of the places where two pictures that lie over each other differ.

Differences are looked at as colours an eye tells apart (CIE L*a*b*), a little blurred, so that noise and JPEG
cancel out, and against what resampling does at edges, which is learned from the pictures themselves. Seeds
are grown with hysteresis (Canny 1986), closed, filled, and freed from specks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .registration import blur
from .tint import to_lab

SMOOTHING = 1.2
CHROMA_SMOOTHING = 3.5
"""JPEG and video keep colour at half the size or less, so colour is compared more coarsely than light."""
SURE, LIKELY = 5.0, 2.5
"""Differences, in units of what is usual at such a place, from which a pixel is a seed, or joins one."""
LEAST_SURE, LEAST_LIKELY = 4.0, 2.0
"""The same in delta E, below which no eye would call it a change."""
EDGE = 0.45
USUAL = 0.6
"""Delta E that counts as usual even where the pictures agree better."""
BINS = 12
MIN_AREA = 2e-4
"""Share of the picture below which a lone change is a speck."""


@dataclass(frozen=True)
class Change:
    """mask: bool `[H, W]`. difference: `[H, W]` delta E, a little blurred. share: of the picture, 0..1.
    usual: median delta E where nothing changed.
    """

    mask: Tensor
    difference: Tensor
    share: float
    usual: float


def find_changes(original: Tensor, edited: Tensor, shown: Tensor, sensitivity: float = 1.0) -> Change:
    """Both `[H, W, 3]` in 0..1, laid over each other and of the same colours. shown: bool `[H, W]`, where the
    edit has pixels at all; elsewhere nothing counts as changed. sensitivity: 2 halves what counts as one.
    """
    first = to_lab(original)
    # What the edit does not show must not bleed into what it shows.
    second = torch.where(shown[..., None], to_lab(edited), first)
    light = blur(first[..., 0] - second[..., 0], SMOOTHING).abs()
    chroma = blur(first[..., 1:] - second[..., 1:], CHROMA_SMOOTHING).norm(dim=-1)
    difference = torch.hypot(light, chroma)
    usual = _learn_usual(difference, _detail(first), shown)
    seeds = (difference * sensitivity > (SURE * usual).clamp_min(LEAST_SURE)) & shown
    least = (LIKELY * usual).clamp_min(LEAST_LIKELY) / sensitivity
    # Each kind by its own measure: where light agrees, colour that a blur carried over an edge is no change.
    joins = (_is_inside(light, SMOOTHING, least) | _is_inside(chroma, CHROMA_SMOOTHING, least)) & shown
    mask = torch.from_numpy(_grow(seeds.cpu().numpy(), joins.cpu().numpy()))
    quiet = difference[shown & ~mask]
    return Change(
        mask=mask,
        difference=difference,
        share=float(mask.float().mean()),
        usual=float(quiet.median()) if quiet.numel() else math.inf,
    )


def _is_inside(difference: Tensor, sigma: float, least: Tensor) -> Tensor:
    """Where a blurred difference reaches half of the strongest nearby: a blurred step is half at its edge."""
    reach = 2 * math.ceil(2 * sigma) + 1
    strongest = ndimage.maximum_filter(difference.cpu().numpy(), size=reach)
    return (difference > EDGE * torch.from_numpy(strongest).to(difference)) & (difference > least)


def _detail(lab: Tensor) -> Tensor:
    """How steep the picture is around each pixel, in delta E a pixel."""
    smooth = blur(lab, SMOOTHING)
    by_x, by_y = torch.zeros_like(smooth), torch.zeros_like(smooth)
    by_x[:, 1:-1] = (smooth[:, 2:] - smooth[:, :-2]) / 2
    by_y[1:-1] = (smooth[2:] - smooth[:-2]) / 2
    return blur((by_x**2 + by_y**2).sum(dim=-1).sqrt(), 2.5)


def _learn_usual(difference: Tensor, detail: Tensor, shown: Tensor) -> Tensor:
    """The usual difference at each pixel: the median among pixels of as much detail, as long as most of them
    did not change; never less than `USUAL`, never falling with detail.
    """
    level, value = detail[shown], difference[shown]
    if value.numel() < 10 * BINS:
        return torch.full_like(difference, USUAL)
    order = level.argsort()
    edges, heights, highest = [], [], USUAL
    # A quarter and not the half: what changed may be more than half of the flat, or of the detailed.
    for part in order.chunk(BINS):
        edges.append(float(level[part].median()))
        highest = max(highest, 2.2 * float(value[part].quantile(0.25)) if part.numel() < 1e6 else USUAL)
        heights.append(highest)
    learned = np.interp(detail.cpu().numpy(), edges, heights)
    # One wholly changed bin must not excuse the rest: detail costs a tenth of its own steepness at most.
    return torch.from_numpy(learned).to(difference).minimum(USUAL + 0.35 * detail)


def _grow(seeds: np.ndarray, joins: np.ndarray) -> np.ndarray:
    eight = np.ones((3, 3), bool)
    labels, count = ndimage.label(joins, structure=eight)
    if not count:
        return np.zeros_like(seeds)
    kept = np.zeros(count + 1, bool)
    kept[np.unique(labels[seeds & joins])] = True
    kept[0] = False
    mask = kept[labels]
    radius = max(1, round(0.008 * max(mask.shape)))
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    padded = np.pad(mask, radius)
    # scipy erodes from outside the picture, which would open what touches the border.
    closed = ndimage.binary_closing(padded, structure=disc)[radius:-radius, radius:-radius]
    filled = ndimage.binary_fill_holes(closed)
    labels, count = ndimage.label(filled, structure=eight)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    large = areas >= max(16, MIN_AREA * mask.size)
    large[0] = False
    return large[labels]
