"""A picture on a larger canvas: where it lies, what stands beside it, and where old turns into new."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ..base.errors import InputError
from ..base.fields import Field, check_fields
from ..base.sentences import say
from ..regions.geometry import Box, grow_box, plan_area
from ..regions.masks import masks_around
from ..regions.seeds import seed_of_region
from .plan import EditPlan, EditRegion, find_beyond
from .request import AREAS, MAX_UPSCALE, WHOLE, EditRequest

SIDES, ASPECT, SIZE = "pixels a side", "aspect", "size"
WAYS = (SIDES, ASPECT, SIZE)
ASPECTS = ("1:1", "5:4", "4:3", "3:2", "16:9", "21:9", "4:5", "3:4", "2:3", "9:16")
ANCHORS = {
    "centre": (0.5, 0.5),
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
    "top": (0.5, 0.0),
    "bottom": (0.5, 1.0),
    "top left": (0.0, 0.0),
    "top right": (1.0, 0.0),
    "bottom left": (0.0, 1.0),
    "bottom right": (1.0, 1.0),
}
EDGE, MIRROR, NOISE = "edge colour", "mirrored", "noise"
FILLS = (EDGE, MIRROR, NOISE)
MAX_CANVAS = 16384

_SIDE = "Pixels to add at the {}; only with extend on pixels a side."
WAY = Field(
    "extend",
    SIDES,
    "How the new size is told. pixels a side: left, top, right and bottom. aspect: the smallest picture of "
    "that shape around the old one. size: width and height.",
    choices=WAYS,
)
LEFT, TOP, RIGHT, BOTTOM = (
    Field(side, default, _SIDE.format(side), low=0, high=4096, step=8)
    for side, default in (("left", 0), ("top", 0), ("right", 256), ("bottom", 0))
)
ASPECT_FIELD = Field(
    "aspect", "16:9", "Width to height of the new picture; only with extend on aspect.", choices=ASPECTS
)
WIDTH, HEIGHT = (
    Field(
        side,
        1024,
        f"{side.capitalize()} of the new picture in pixels, not less than the old one's; only with extend on "
        "size.",
        low=64,
        high=MAX_CANVAS,
        step=8,
    )
    for side in ("width", "height")
)
ANCHOR = Field(
    "anchor",
    "centre",
    "Where the old picture lies in the new one, with extend on aspect or size.",
    choices=tuple(ANCHORS),
)
OVERLAP = Field(
    "overlap",
    16,
    "Pixels of the old picture, from its edge inwards, in which old turns into new. The rest of it stays bit "
    "for bit.",
    low=0,
    high=512,
)
FILL = Field(
    "fill",
    EDGE,
    "What stands in the new part before it is painted, and what image 1 shows there. edge colour: the last "
    "pixels drawn out. mirrored: the picture reflected. noise: random colours.",
    choices=FILLS,
    optional=True,
    advanced=True,
)
OUTPAINT_AREA = Field(
    "area",
    WHOLE,
    "whole picture: the model sees all of it. crop: the new part with context times as much around it, for "
    "large pictures of which little is new.",
    choices=AREAS,
)
CANVAS_FIELDS = (
    WAY, LEFT, TOP, RIGHT, BOTTOM, ASPECT_FIELD, WIDTH, HEIGHT, ANCHOR, OVERLAP, FILL, OUTPAINT_AREA,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OutpaintRequest(EditRequest):
    """extend: one of WAYS, which decides what of the rest counts. left to bottom, width, height, overlap: in
    pixels. context: as in InpaintRequest, for area crop."""

    extend: str = WAY.default
    left: int = LEFT.default
    top: int = TOP.default
    right: int = RIGHT.default
    bottom: int = BOTTOM.default
    aspect: str = ASPECT_FIELD.default
    width: int = WIDTH.default
    height: int = HEIGHT.default
    anchor: str = ANCHOR.default
    overlap: int = OVERLAP.default
    fill: str = FILL.default
    area: str = OUTPAINT_AREA.default
    context: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, CANVAS_FIELDS)


@dataclass(frozen=True)
class Canvas:
    """Pixels added to a picture of (width, height), side by side."""

    picture: tuple[int, int]
    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.picture[0] + self.left + self.right, self.picture[1] + self.top + self.bottom

    @property
    def grows(self) -> bool:
        return self.size != self.picture

    @property
    def old(self) -> tuple[slice, slice]:
        """Rows and columns where the old picture lies."""
        return (
            slice(self.top, self.top + self.picture[1]),
            slice(self.left, self.left + self.picture[0]),
        )


def plan_canvas(picture: tuple[int, int], request: OutpaintRequest) -> Canvas:
    """The canvas for a picture of (width, height). Raises InputError where it would be cut, or too large."""
    if request.extend == SIDES:
        canvas = Canvas(picture, request.left, request.top, request.right, request.bottom)
    else:
        width, height = _wanted_size(picture, request)
        across, down = ANCHORS[request.anchor]
        left, top = round((width - picture[0]) * across), round((height - picture[1]) * down)
        canvas = Canvas(picture, left, top, width - picture[0] - left, height - picture[1] - top)
    if max(canvas.size) > MAX_CANVAS:
        raise InputError(
            say(
                "The new picture would be %1x%2, but its sides may have at most "
                "%3 pixels: add less, or make image smaller first.",
                canvas.size[0],
                canvas.size[1],
                MAX_CANVAS,
            )
        )
    return canvas


def _wanted_size(picture: tuple[int, int], request: OutpaintRequest) -> tuple[int, int]:
    width, height = picture
    if request.extend == ASPECT:
        across, down = map(int, request.aspect.split(":"))
        return max(width, round(height * across / down)), max(height, round(width * down / across))
    if request.width < width or request.height < height:
        raise InputError(
            say(
                "width and height are %1x%2, but image is %3x%4 already, "
                "and outpainting only adds: choose larger ones, or cut or shrink image first.",
                request.width,
                request.height,
                width,
                height,
            )
        )
    return request.width, request.height


def fill_canvas(pictures: Tensor, canvas: Canvas, fill: str, seed: int = 0) -> Tensor:
    """IMAGE `[B, H, W, C]` on its canvas, the same bits where it lies; alpha is 1 beside it."""
    made = pictures.new_ones((len(pictures), canvas.size[1], canvas.size[0], pictures.shape[-1]))
    colours = made[..., :3]
    if fill == NOISE:
        drawn = torch.rand(colours.shape, generator=torch.Generator().manual_seed(seed))
        colours.copy_(drawn)
    else:
        across = _sources(canvas.left, canvas.picture[0], canvas.right, fill).to(pictures.device)
        down = _sources(canvas.top, canvas.picture[1], canvas.bottom, fill).to(pictures.device)
        colours.copy_(pictures[..., :3][:, down][:, :, across])
    made[:, canvas.old[0], canvas.old[1]] = pictures
    return made


def _sources(before: int, length: int, after: int, fill: str) -> Tensor:
    """For each pixel of a row of the canvas, which one of the picture stands there."""
    places = torch.arange(-before, length + after)
    if fill == EDGE or length == 1:
        return places.clamp(0, length - 1)
    period = 2 * (length - 1)
    folded = places % period
    return torch.minimum(folded, period - folded)


def draw_overlap(canvas: Canvas, overlap: int) -> Tensor:
    """Float32 `[H, W]` over the canvas: 1 where it is new, falling smoothly to 0 within `overlap` pixels of
    the old picture, never further than to its middle."""
    x = _depths(canvas.left, canvas.picture[0], canvas.right)
    y = _depths(canvas.top, canvas.picture[1], canvas.bottom)
    # Within the picture: pixels from the nearest side at which it grows. Corners are round.
    depth = torch.minimum(x[None, :], y[:, None])
    near = min(overlap, *(side // 2 for side in canvas.picture))
    new = depth <= 0
    if near <= 0:
        return new.float()
    ramp = ((depth - 0.5) / near).clamp(0, 1)
    return torch.where(new, 1.0, 1 - ramp * ramp * (3 - 2 * ramp))


def _depths(before: int, length: int, after: int) -> Tensor:
    """Pixels from the nearest edge that grows, from 1 within the picture, 0 and less outside."""
    places = torch.arange(-before, length + after, dtype=torch.float32)
    depth = torch.full_like(places, math.inf)
    if before:
        depth = torch.minimum(depth, places + 1)
    if after:
        depth = torch.minimum(depth, length - places)
    return depth


def plan_outpaint(count: int, canvas: Canvas, request: OutpaintRequest, pixels: float) -> EditPlan:
    """The regions of `count` pictures on their canvas: all that is new of each is one."""
    composite = draw_overlap(canvas, request.overlap)
    box = _box_of(composite > 0)
    wanted: Box = (0.0, 0.0, float(canvas.size[0]), float(canvas.size[1]))
    if request.area != WHOLE:
        sides = sorted((box[2] - box[0], box[3] - box[1]))
        # As much old as new at the least, beside a narrow strip, too.
        wanted = grow_box(box, max((request.context - 1) / 2 * sides[1], sides[0]))
    crop = plan_area(wanted, canvas.size, pixels, 1.0 if request.area == WHOLE else MAX_UPSCALE)
    beyond = find_beyond([crop], canvas.size)
    continued = functional.pad(composite[None, None], (0, beyond[0], 0, beyond[1]), mode="replicate")[0, 0]
    window = continued[crop.region]
    # No more of the old than the overlap and a cell is painted: what the new goes on from must stay.
    masks = masks_around(window, window.numpy() > 0, 0.0, crop)
    template = EditRegion(picture=0, number=1, crop=crop, masks=masks, reach=box, seed=0, box=box)
    regions = [
        replace(template, picture=number * count + index, seed=seed_of_region(seed, index, 0))
        for number, seed in enumerate(request.seeds)
        for index in range(count)
    ]
    return EditPlan(tuple(regions), beyond)


def _box_of(inside: Tensor) -> Box:
    rows, columns = (inside.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
