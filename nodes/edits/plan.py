"""From masks to work: which crops are painted, at what size, and what of them may change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.values import MASK_PIXELS
from ..regions.geometry import MIN_TARGET, Box, Crop, grow_box, longer_side, plan_area
from ..regions.masks import MARGIN, Masks, fade_inwards, grow, masks_around, open_sides
from ..regions.seeds import seed_of_region
from ..regions.waves import Region
from .parts import APART, AUTOMATIC, LEAST, TOGETHER, Part, find_parts
from .request import MAX_UPSCALE, WHOLE, InpaintRequest

LEAST_CONTEXT = 1.1
"""Side of a crop in sides of all that may change, whatever context says: the model must see what is kept."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EditRegion(Region):
    """A part of a picture to paint. box: of what is to change. pictures are numbered result by result."""

    box: Box


@dataclass(frozen=True)
class EditPlan:
    """regions: of all pictures and results. beyond: columns and rows by which the pictures must be continued
    to the right and below, so that every crop lies in them. left_out: regions skipped by their prompts."""

    regions: tuple[EditRegion, ...] = ()
    beyond: tuple[int, int] = (0, 0)
    left_out: int = 0


def plan_inpaint(
    masks: Sequence[Sequence[Tensor]], picture: tuple[int, int], request: InpaintRequest, pixels: float
) -> EditPlan:
    """masks: for each picture of (width, height) its masks `[H, W]` in 0..1; where there are several, each is
    a region of its own. pixels: at which a crop is painted."""
    drawn: list[tuple[int, int, Part, Crop, Masks]] = []
    left_out = 0
    planned: dict[tuple[int, ...], list[tuple[int, Part, Crop, Masks]]] = {}
    for index, own in enumerate(masks):
        # The frames of a sequence share one mask: it is looked at once.
        key = tuple(map(id, own))
        if key not in planned:
            planned[key] = []
            for place, part in enumerate(_split(own, request)):
                if request.prompts.skips(place):
                    left_out += 1
                    continue
                crop = _plan_crop(part, picture, request, pixels)
                planned[key].append((place, part, crop, _draw_masks(part, crop, picture, request)))
        drawn += [(index, *entry) for entry in planned[key]]
    regions = []
    for index, place, part, crop, made in drawn:
        for number, seed in enumerate(request.seeds):
            regions.append(
                EditRegion(
                    picture=number * len(masks) + index,
                    number=place + 1,
                    crop=crop,
                    masks=made,
                    reach=_reach_of(part, request),
                    seed=seed_of_region(seed, index, place),
                    prompt=request.prompts.for_region(place, request.prompt),
                    box=part.box,
                )
            )
    return EditPlan(tuple(regions), find_beyond([crop for *_, crop, _ in drawn], picture), left_out)


def find_beyond(crops: Sequence[Crop], picture: tuple[int, int]) -> tuple[int, int]:
    """By how many columns and rows crops reach over the right and lower edge of a picture (width, height)."""
    across = max((crop.left + crop.width - picture[0] for crop in crops), default=0)
    down = max((crop.top + crop.height - picture[1] for crop in crops), default=0)
    return max(0, across), max(0, down)


def _split(masks: Sequence[Tensor], request: InpaintRequest) -> list[Part]:
    split = request.regions
    if split == AUTOMATIC and len(request.prompts.lines) > 1:
        split = APART
    elif split == AUTOMATIC and request.area == WHOLE:
        split = TOGETHER
    if len(masks) > 1 and split != TOGETHER:
        return [part for mask in masks for part in find_parts(mask, TOGETHER)]
    if len(masks) > 1:
        return find_parts(torch.stack(list(masks)).amax(dim=0), TOGETHER)
    return find_parts(masks[0], split)


def _edge_of(part: Part, request: InpaintRequest) -> tuple[float, float]:
    """grow and feather in pixels of the picture."""
    unit = 1.0 if request.edge_unit == MASK_PIXELS else part.side / 100
    return request.grow * unit, request.feather * unit


def _reach_of(part: Part, request: InpaintRequest) -> Box:
    return grow_box(part.box, math.ceil(_edge_of(part, request)[0] + MARGIN * longer_side(part.box)))


def _plan_crop(part: Part, picture: tuple[int, int], request: InpaintRequest, pixels: float) -> Crop:
    """A square around the part where the picture has room for it; and all that may change is in it."""
    if request.area == WHOLE:
        return plan_area((0, 0, *picture), picture, pixels, 1.0)
    grown = grow_box(part.box, math.ceil(_edge_of(part, request)[0]))
    # A speck alone says nothing, so that no crop is smaller than the least that is painted.
    side = max(request.context * longer_side(part.box), LEAST_CONTEXT * longer_side(grown), MIN_TARGET)
    wanted = []
    for low, high, room in ((grown[0], grown[2], picture[0]), (grown[1], grown[3], picture[1])):
        start = min(max((low + high - side) / 2, 0), max(0, room - side))
        wanted.append((start, min(start + side, room)))
    (x0, x1), (y0, y1) = wanted
    return plan_area((x0, y0, x1, y1), picture, pixels, MAX_UPSCALE)


def _draw_masks(part: Part, crop: Crop, picture: tuple[int, int], request: InpaintRequest) -> Masks:
    """The masks of a part in its crop. A soft mask stays as soft as it is: growing moves each of its levels
    outwards, and the transition of feather takes what is softer of both."""
    from scipy.ndimage import maximum_filter  # comes with ComfyUI; slow to import

    by, blur = _edge_of(part, request)
    weights = cut_window(part.weights, part.box, crop, picture)
    grown = grow(weights > 0, by)
    moved = maximum_filter(weights, size=2 * math.ceil(by) + 1) if by else weights
    values = torch.from_numpy(np.where(grown, moved, 0).astype(np.float32))
    composite = torch.minimum(fade_inwards(grown, blur, open_sides(crop, picture)), values)
    return masks_around(composite, composite.numpy() > 0, longer_side(part.box), crop)


def cut_window(weights: Tensor, box: Box, crop: Crop, picture: tuple[int, int]) -> np.ndarray:
    """Weights that stand in `box`, over a crop; beyond the picture's right and lower edge they go on."""
    width, height = picture
    window = np.zeros((crop.height, crop.width), np.float32)
    x0, y0 = (round(edge) - start for edge, start in zip(box[:2], (crop.left, crop.top), strict=True))
    rows, columns = weights.shape
    window[y0 : y0 + rows, x0 : x0 + columns] = np.where(weights.numpy() >= LEAST, weights.numpy(), 0)
    inside_x, inside_y = width - crop.left, height - crop.top
    if 0 < inside_x < crop.width:
        window[:, inside_x:] = window[:, inside_x - 1 : inside_x]
    if 0 < inside_y < crop.height:
        window[inside_y:] = window[inside_y - 1 : inside_y]
    return window
