"""Which rectangle around a part is painted, and at what size: whole 16-pixel cells, one exact scale.

The VAE of FLUX.2 cuts every picture to multiples of 16 and so shifts and zooms whatever was not one. A crop
here is a rectangle of whole pixels whose sides stand in exactly the ratio of the two target sides, so that
one scale serves both axes and the way back is the way there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from ..base.flux2 import CELL

MIN_TARGET = 64
"""FLUX.2's least side; below, a part has too few cells to be painted."""
MAX_TARGET = 2048

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the picture, the last two exclusive."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of the picture in whole pixels, and the size it is painted at (multiples of 16)."""

    left: int
    top: int
    width: int
    height: int
    target_width: int
    target_height: int

    def __post_init__(self) -> None:
        if min(self.left, self.top) < 0 or min(self.width, self.height) < 1:
            raise ValueError(f"A crop must lie inside the picture, but this one is {self.box}.")
        if self.target_width % CELL or self.target_height % CELL or min(self.target) < CELL:
            raise ValueError(f"A crop is painted at multiples of {CELL}, not at {self.target}.")
        if self.target_width * self.height != self.target_height * self.width:
            raise ValueError(f"A crop of {self.width}x{self.height} would be stretched to {self.target}.")

    @property
    def target(self) -> tuple[int, int]:
        return self.target_width, self.target_height

    @property
    def scale(self) -> Fraction:
        """Target pixels a pixel of the picture, the same on both axes."""
        return Fraction(self.target_width, self.width)

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def grow_box(box: Box, margin: float) -> Box:
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def longer_side(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])


def plan_crop(
    subject: Box,
    reach: Box,
    picture: tuple[int, int],
    size: int,
    context: float = 2.0,
    max_upscale: float = 8.0,
) -> Crop | None:
    """The crop around `subject`, painted at `size`, in a picture of (width, height); None where too small.

    It is a square of `context` times the subject's longer side, or more where `reach` (all that may change)
    needs it, moved inside the picture; only where the picture has no room for the square it is a rectangle.
    Nothing is enlarged more than `max_upscale` times, and nothing is made smaller before 2048 pixels: a
    subject already larger than `size` is painted as it is.
    """
    wanted = math.ceil(max(context * longer_side(subject), longer_side(reach), 1))
    width, height = min(wanted, picture[0]), min(wanted, picture[1])
    longest = max(width, height)
    scale = min(size / longest, max_upscale)
    if scale < 1:
        scale = min(1.0, MAX_TARGET / longest)
    if longest * scale < MIN_TARGET:
        return None
    if width == height:
        sides = _square(width, scale, picture)
    else:
        sides = _rectangle(width, height, scale, max_upscale)
    if sides is None:
        return None
    centre = (reach[0] + reach[2]) / 2, (reach[1] + reach[3]) / 2
    left, top = (
        min(max(round(middle - side / 2), 0), room - side)
        for middle, side, room in zip(centre, sides[:2], picture, strict=True)
    )
    return Crop(left, top, *sides)


def plan_area(wanted: Box, picture: tuple[int, int], pixels: float, max_upscale: float) -> Crop:
    """A crop that shows all of `wanted` of a picture of (width, height), painted at about `pixels` pixels:
    enlarged at most `max_upscale` times, made smaller where it is larger.

    Where no rectangle of one exact scale lies inside the picture, the crop reaches over its right and lower
    edge, mostly by less than a cell: whoever paints continues the picture there.
    """
    x0, y0 = max(0, math.floor(wanted[0])), max(0, math.floor(wanted[1]))
    x1, y1 = min(picture[0], math.ceil(wanted[2])), min(picture[1], math.ceil(wanted[3]))
    width, height = max(1, x1 - x0), max(1, y1 - y0)
    sides = _area(width, height, math.sqrt(pixels / (width * height)), picture, max_upscale)
    left, top = (
        min(max(round(middle - side / 2), 0), max(0, room - side))
        for middle, side, room in zip(((x0 + x1) / 2, (y0 + y1) / 2), sides[:2], picture, strict=True)
    )
    return Crop(left, top, *sides)


SAME_SCALE = 0.94, 1.12
"""Scales so near to 1 that the crop is painted as it is: resampling would cost more than it brings."""


def _area(
    width: int, height: int, scale: float, picture: tuple[int, int], max_upscale: float
) -> tuple[int, int, int, int]:
    """Sides from width x height on, in the ratio of whole cells, and the sides they are painted at."""
    scale = min(scale, max_upscale)
    if SAME_SCALE[0] <= scale <= SAME_SCALE[1] and min(width, height) >= MIN_TARGET:
        across, down = -(-width // CELL) * CELL, -(-height // CELL) * CELL
        return across, down, across, down
    least = MIN_TARGET // CELL
    best, found = math.inf, (0, 0, 0, 0)
    for across in _around(width * scale / CELL, least):
        for down in _around(height * scale / CELL, least):
            shared = math.gcd(across, down)
            p, q = across // shared, down // shared
            share = max(-(-width // p), -(-height // q), math.ceil(CELL * shared / max_upscale))
            beyond = max(0, p * share - picture[0]) * height + max(0, q * share - picture[1]) * width
            value = (
                math.log(p * share / width * (q * share / height))
                + 4 * beyond / (width * height)
                + 0.3 * abs(math.log(CELL * shared / share / scale))
            )
            if value < best:
                best, found = value, (p * share, q * share, CELL * across, CELL * down)
    return found


def _around(cells: float, least: int) -> range:
    first = max(least, math.floor(cells * 0.85))
    return range(first, max(first, math.ceil(cells * 1.12)) + 1)


def _square(side: int, scale: float, picture: tuple[int, int]) -> tuple[int, int, int, int] | None:
    if scale == 1:
        room = min(picture) // CELL * CELL
        side = min(-(-side // CELL) * CELL, room)
        return (side, side, side, side) if side else None
    # A float product may fall just short of the size it was made from.
    target = math.floor(side * scale + 1e-6) // CELL * CELL
    if scale > 1 and target < side:  # whole cells would make it smaller
        return _square(side, 1.0, picture)
    return side, side, target, target


def _rectangle(width: int, height: int, scale: float, max_upscale: float) -> tuple[int, int, int, int] | None:
    """Sides up to width x height in the ratio of whole cells: the pair of cell counts that loses least."""
    if scale == 1:
        width, height = width // CELL * CELL, height // CELL * CELL
        return (width, height, width, height) if width and height else None
    best, found = -math.inf, None
    for across in _near(width * scale / CELL):
        for down in _near(height * scale / CELL):
            shared = math.gcd(across, down)
            p, q = across // shared, down // shared
            pixels = min(width // p, height // q)
            if scale > 1:  # a smaller crop at full size loses less than one that would have to be shrunk
                pixels = min(pixels, CELL * shared)
            too_large = CELL * max(across, down) > max(width, height) * scale + CELL / 2
            enlarged = Fraction(CELL * across, max(1, p * pixels))
            if not pixels or too_large or enlarged > max_upscale:
                continue
            kept = (p * pixels / width) * (q * pixels / height)
            value = kept - 0.1 * abs(math.log(enlarged / scale))
            if value > best:
                best, found = value, (p * pixels, q * pixels, CELL * across, CELL * down)
    return found or (_rectangle(width, height, 1.0, max_upscale) if scale > 1 else None)


def _near(cells: float) -> range:
    """Counts of cells worth trying around a wished-for number."""
    return range(max(1, math.floor(cells * 0.7)), max(1, math.ceil(cells * 1.1)) + 1)


def intersects(first: Box, second: Box) -> bool:
    """Whether two boxes share more than an edge."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
