"""How large each reference becomes, and which part of it stays.

A picture is never enlarged. Where it has to shrink it is scaled evenly and cut by less than one cell of 16
pixels on one axis, from both edges alike, so that its centre stays its centre. Limits follow Black Forest
Labs (flux2 `sampling.py`, `encode_image_refs`): one reference up to 2024 x 2024 pixels, several up to 1024 x
1024 each, no side under 64 pixels, none more than 8 times the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..base.errors import InputError
from ..base.fields import check_choice
from ..base.flux2 import CELL
from ..base.sentences import say

AUTO, TOTAL, EACH, NATIVE = "auto", "total megapixels", "megapixels per image", "native"
POLICIES = (AUTO, TOTAL, EACH, NATIVE)

MEGAPIXEL = 1024 * 1024
"""As ComfyUI's own nodes count."""
PIXELS_OF_ONE = 2024 * 2024
PIXELS_OF_MANY = 1024 * 1024
MIN_SIDE = 64
MAX_SIDE = 2048
"""The longest side of a picture that Klein makes: an edit must be able to be as large as its reference."""
MAX_ASPECT = 8

Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SizePlan:
    """The part `shown` (left, top, right, bottom) of a picture of the size `given` becomes one of size
    `used`, by one even scale of at most 1; sizes are (width, height) in pixels.
    """

    given: Size
    used: Size
    shown: Box

    @property
    def scaled(self) -> bool:
        return self.used[0] != self.shown[2] - self.shown[0]


def plan_sizes(
    given: Sequence[Size], policy: str, megapixels: float, labels: Sequence[str]
) -> list[SizePlan]:
    """The size of every picture. `megapixels` counts for the two policies that name it. `labels` name the
    pictures in errors.

    Raises ValueError for a side under 64 pixels or an aspect over 8, before or after sizing.
    """
    check_choice("size", policy, POLICIES)
    if policy in (TOTAL, EACH) and not 0 < megapixels < math.inf:
        raise InputError(
            say("megapixels is %1, but it must be more than 0: 1 is 1024 x 1024 pixels.", megapixels)
        )
    for size, label in zip(given, labels, strict=True):
        check_shape(size, label)
    if policy == NATIVE:
        return [cut_to_cells(size) for size in given]
    if policy == AUTO:
        pixels: float = PIXELS_OF_ONE if len(given) == 1 else PIXELS_OF_MANY
    elif policy == EACH:
        pixels = megapixels * MEGAPIXEL
    else:
        pixels = share_budget([width * height for width, height in given], megapixels * MEGAPIXEL)
    return [fit_within(size, pixels, label) for size, label in zip(given, labels, strict=True)]


def check_shape(size: Size, label: str) -> None:
    """ValueError for pictures that Klein was never shown: BFL refuses the same ones."""
    width, height = size
    if min(size) < MIN_SIDE:
        raise InputError(
            say(
                "%1 is %2x%3, but both sides of a reference must be at least %4 "
                "pixels: use a larger picture, or enlarge it with Upscale Image first.",
                label,
                width,
                height,
                MIN_SIDE,
            )
        )
    if max(size) > MAX_ASPECT * min(size):
        raise InputError(
            say(
                "%1 is %2x%3: one side is over %4 times the other, which Klein does "
                "not understand. Crop it, or split it into several images.",
                label,
                width,
                height,
                MAX_ASPECT,
            )
        )


def share_budget(pixels: Sequence[float], budget: float) -> float:
    """The limit per picture with which all of them together stay within `budget` pixels.

    Pictures smaller than their share leave the rest to the larger ones; infinity when all fit as they are.
    """
    left = budget
    for position, own in enumerate(sorted(pixels)):
        share = left / (len(pixels) - position)
        if own > share:
            return share
        left -= own
    return math.inf


def fit_within(given: Size, pixels: float, label: str) -> SizePlan:
    """The largest whole number of cells with at most `pixels` pixels and sides up to 2048, never enlarged."""
    width, height = given
    limit = min(1.0, math.sqrt(pixels / (width * height)), MAX_SIDE / max(given))
    # A hair more than the limit: 1023.9999999 is meant to be 1024.
    across, down = (int(side * limit + 1e-6) // CELL * CELL for side in given)
    used = (across, down)
    if min(used) < MIN_SIDE:
        raise InputError(
            say(
                "%1 (%2x%3) would become %4x%5, but both sides must stay at least "
                "%6 pixels: raise megapixels, or connect fewer images.",
                label,
                width,
                height,
                used[0],
                used[1],
                MIN_SIDE,
            )
        )
    scale = max(used[0] / width, used[1] / height)
    if scale == 1:
        return cut_to_cells(given)
    # The axis that decided the scale is shown whole, exactly.
    shown = tuple(
        side if side * scale - cells < 1e-6 else cells / scale
        for side, cells in zip(given, used, strict=True)
    )
    left, top = (width - shown[0]) / 2, (height - shown[1]) / 2
    return SizePlan(given, used, (left, top, left + shown[0], top + shown[1]))


def cut_to_cells(given: Size) -> SizePlan:
    """Not scaled at all: up to 15 pixels of each axis are cut off, where VAE Encode cuts them as well."""
    used = (given[0] // CELL * CELL, given[1] // CELL * CELL)
    left, top = ((side % CELL) // 2 for side in given)
    return SizePlan(given, used, (left, top, left + used[0], top + used[1]))
