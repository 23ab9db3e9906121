"""The parts of a run that are painted, and which of them may be painted at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .geometry import Box, Crop, intersects
from .masks import Masks


@dataclass(frozen=True, eq=False)
class Region:
    """One part of one picture that is to be painted.

    picture: index in the batch. number: its place in the order, from 1. reach: all that may be painted, in
    pixels of the picture. prompt: its own, None for the shared one.
    """

    picture: int
    number: int
    crop: Crop
    masks: Masks
    reach: Box
    seed: int
    prompt: str | None = None


AnyRegion = TypeVar("AnyRegion", bound=Region)


def order_waves(regions: Sequence[AnyRegion]) -> list[list[AnyRegion]]:
    """Regions that may run side by side; one that touches an earlier one waits for it, to see it painted."""
    waves: list[list[AnyRegion]] = []
    placed: list[tuple[AnyRegion, int]] = []
    for region in regions:
        touching = [
            wave
            for other, wave in placed
            if other.picture == region.picture and intersects(other.reach, region.reach)
        ]
        wave = max(touching, default=-1) + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(region)
        placed.append((region, wave))
    return waves


def group_by_size(regions: Sequence[AnyRegion]) -> list[list[AnyRegion]]:
    """Regions of equal target size, which one batch can hold; groups and regions in their order."""
    groups: dict[tuple[int, int], list[AnyRegion]] = {}
    for region in regions:
        groups.setdefault(region.crop.target, []).append(region)
    return list(groups.values())


def join_masks(painted: Iterable[Region], shape: Sequence[int]) -> Tensor:
    """MASK `[B, H, W]` of what was painted into pictures of `shape` [B, H, W, ...]; 0 is untouched."""
    mask = torch.zeros(*shape[:3])
    for region in painted:
        rows, columns = region.crop.region
        part = mask[region.picture, rows, columns]
        torch.maximum(part, region.masks.composite, out=part)
    return mask
