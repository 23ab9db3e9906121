"""Lays only what an edit meant to change over its original: place, colours, change, in this order.

Whatever cannot be measured is said, and nothing is done then: the edit comes out as it came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..base.errors import InputError
from ..base.fields import Field, check_fields
from ..base.sentences import Sentence, say
from ..regions.blend import resize
from .changes import find_changes
from .registration import IDENTITY, MAX_DOUBT, MAX_SHIFT, MAX_ZOOM, Registration, blur, move_back, register
from .tint import apply_tint, delta_e, fit_tint, undo_tint

MEASURE, AS_IT_IS = "measure", "as it is"
PLACES = (MEASURE, AS_IT_IS)
MIN_SIDE = 64
MAX_ASPECT = 0.12
"""Share by which the edit's proportions may differ: more is another cut, not a rounded size."""
MIN_FOUND = 0.2
"""Share of the original's detail that must be there again before a place is believed."""
MAX_SHARE = 0.8
"""Share of the picture beyond which too much changed to call the rest the same."""

FIELDS = (
    Field(
        "place",
        MEASURE,
        choices=PLACES,
        tooltip="measure: finds by how much the edit moved and zoomed the picture, and takes it back. as it "
        "is: both lie over each other already, or show too little detail to measure.",
    ),
    Field(
        "colour_match",
        1.0,
        low=0.0,
        high=1.0,
        step=0.05,
        tooltip="How much of the tint that the edit added to what it should have left alone is taken back "
        "from the part that is kept of it. 0 takes its colours as they are.",
    ),
    Field(
        "sensitivity",
        1.0,
        low=0.25,
        high=4.0,
        step=0.05,
        tooltip="What counts as a change, where no mask is connected: 2 finds changes half as strong, 0.5 "
        "only those twice as strong.",
    ),
    Field(
        "grow",
        6,
        low=0,
        high=512,
        tooltip="Pixels around the change that still come from the edit, at least in part.",
    ),
    Field(
        "feather",
        6,
        low=0,
        high=512,
        tooltip="Width in pixels of the transition, which ends where grow ends. Beyond it not a bit of the "
        "original changes.",
    ),
)


@dataclass(frozen=True)
class KeepSettings:
    """place: whether shift and zoom are measured. colour_match: 0..1. sensitivity: of the change mask.
    grow, feather: pixels of the original.
    """

    place: str = MEASURE
    colour_match: float = 1.0
    sensitivity: float = 1.0
    grow: int = 6
    feather: int = 6

    def __post_init__(self) -> None:
        check_fields(self, FIELDS)


@dataclass(frozen=True)
class Kept:
    """What became of one picture.

    picture: `[H, W, C]`, of the original's size and channels; the whole edit where `refusal` says why nothing
    was done. mask: `[H, W]` float32, what comes from the edit, 0 where not a bit changed. fitted: the
    edit, in place and colour. before, after: mean delta E of what did not change, of the edit as it came and
    as it was fitted. share: of the picture that comes from the edit at all.
    """

    original: Tensor
    edited: Tensor
    fitted: Tensor
    picture: Tensor
    mask: Tensor
    place: Registration
    before: float = 0.0
    after: float = 0.0
    share: float = 0.0
    refusal: Sentence = Sentence("")


def keep(original: Tensor, edited: Tensor, mask: Tensor | None, settings: KeepSettings) -> Kept:
    """original: `[H, W, C]`, edited `[h, w, C]`, both 0..1. mask: `[H, W]`, what may change, or None to find
    it. Raises InputError where the pictures cannot belong together.
    """
    height, width = original.shape[:2]
    _check_sizes(original, edited)
    came = edited[..., :3].float()
    sized = came if came.shape[:2] == (height, width) else resize(came, (height, width)).clamp(0, 1)
    given = original[..., :3].float()
    if torch.equal(given, sized):
        untouched = torch.zeros((height, width))
        return Kept(original, sized, sized, original, untouched, IDENTITY)

    def refuse(why: Sentence, place: Registration = IDENTITY) -> Kept:
        all_of_it = torch.ones((height, width))
        as_it_came = torch.cat([sized, original[..., 3:].float()], dim=-1)
        return Kept(original, sized, sized, as_it_came, all_of_it, place, share=1.0, refusal=why)

    usable = torch.ones((height, width), dtype=torch.bool) if mask is None else mask <= 0
    place = IDENTITY
    if settings.place == MEASURE:
        # What is known to have changed is blanked in both, so that it cannot be mistaken for a movement.
        place = register(_blank(given, mask), _blank(sized, mask))
        why = _doubt(place, width, height)
        if why:
            return refuse(why, place)
    moved, shown = move_back(sized, place)
    tint = fit_tint(blur(moved, 2.0), blur(given, 2.0), usable & shown)
    if mask is None:
        # Compared in the edit's own colours: what it cut off at black or white is then no change.
        change = find_changes(undo_tint(given, tint), moved, shown, settings.sensitivity)
        if change.share > MAX_SHARE:
            return refuse(
                say(
                    "%1 of the picture changed: too little is left to measure place and colours by. Connect "
                    "a mask of what may change, or use the edited picture as it is.",
                    f"{change.share:.0%}",
                ),
                place,
            )
        core = change.mask
    else:
        core = (mask > 0) & shown
    fitted = torch.lerp(moved, apply_tint(moved, tint), settings.colour_match)
    weight = _soften(core, settings) if mask is None else torch.where(shown, mask.float().clamp(0, 1), 0.0)
    weight = torch.where(shown, weight, 0.0)
    return Kept(
        original=original,
        edited=sized,
        fitted=fitted,
        picture=_lay_over(original, fitted, weight),
        mask=weight,
        place=place,
        before=_mean(delta_e(sized, given), ~core),
        after=_mean(delta_e(fitted, given), ~core & shown),
        share=float((weight > 0).float().mean()),
    )


def _check_sizes(original: Tensor, edited: Tensor) -> None:
    (height, width), (other_height, other_width) = original.shape[:2], edited.shape[:2]
    if min(height, width, other_height, other_width) < MIN_SIDE:
        raise InputError(
            say(
                "original is %1x%2 and edited %3x%4, but both sides of both must be %5 pixels or more.",
                width,
                height,
                other_width,
                other_height,
                MIN_SIDE,
            )
        )
    if abs(math.log(width / height * other_height / other_width)) > MAX_ASPECT:
        raise InputError(
            say(
                "original is %1x%2 and edited %3x%4: these are different proportions. "
                "Edit the whole picture at its own proportions, or cut original as the edit is cut.",
                width,
                height,
                other_width,
                other_height,
            )
        )


def _doubt(place: Registration, width: int, height: int) -> Sentence:
    """Why a measured place is not to be believed, or nothing."""
    if place.detailed == 0 or place.doubt > MAX_DOUBT * max(1.0, max(width, height) / 1024):
        return say(
            "The pictures show too little detail to tell whether the edit moved them. Set place to 'as it "
            "is' if the pictures lie over each other already."
        )
    zoom = max(abs(scale - 1) for scale in place.scale)
    far = max(abs(place.shift[0]) / width, abs(place.shift[1]) / height)
    if place.found < MIN_FOUND or zoom > MAX_ZOOM or far > MAX_SHIFT:
        return say(
            "Only %1 of the original's detail was found again in the edited picture: too much changed, or it "
            "is another picture. Set place to 'as it is' if the pictures lie over each other already.",
            f"{place.found:.0%}",
        )
    return Sentence("")


def _blank(picture: Tensor, mask: Tensor | None) -> Tensor:
    return picture if mask is None else torch.where((mask > 0)[..., None], 0.5, picture)


def _soften(core: Tensor, settings: KeepSettings) -> Tensor:
    """1 inside, falling over `feather` pixels to 0 at `grow` pixels outside."""
    if not bool(core.any()):
        return torch.zeros(core.shape)
    inside = core.cpu().numpy()
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    # Half a pixel, since the edge runs between the last pixel inside and the first outside.
    outside = torch.from_numpy(np.asarray(distance, np.float32)) - 0.5
    if not settings.feather:
        return (outside < settings.grow).float()
    return ((settings.grow - outside) / settings.feather).clamp(0, 1)


def _lay_over(original: Tensor, fitted: Tensor, weight: Tensor) -> Tensor:
    colour = original[..., :3]
    mixed = torch.lerp(colour.float(), fitted, weight[..., None]).to(original.dtype)
    laid = torch.where(weight[..., None] > 0, mixed, colour)
    return torch.cat([laid, original[..., 3:]], dim=-1)


def _mean(values: Tensor, where: Tensor) -> float:
    return float(values[where].mean()) if bool(where.any()) else math.nan
