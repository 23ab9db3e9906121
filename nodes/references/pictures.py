"""Whatever is plugged in, as clean single pictures: counted, checked, without alpha, masked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError
from ..base.pictures import BACKGROUNDS, check_mask, fit_mask, to_rgb, to_unit
from ..base.sentences import Sentence, say
from .sizing import MAX_ASPECT, MIN_SIDE

MAX_PICTURES = 100
FILL, CROP, CROP_AND_FILL = "hide the rest", "crop", "crop and hide the rest"
MASK_USES = (FILL, CROP, CROP_AND_FILL)


@dataclass(frozen=True)
class Frame:
    """One picture as it came: pixels `[H, W, C]`, mask `[h, w]` (1 = the part that counts) or None, place
    `[h, w]` (1 = where on the new picture it acts) or None."""

    pixels: Tensor
    mask: Tensor | None
    label: str
    place: Tensor | None = None


@dataclass(frozen=True)
class Picture:
    """A clean picture: `[H, W, 3]` float32 in 0..1. asked: the part of the given picture it is, (left, top,
    right, bottom); given: (width, height) of that.
    """

    pixels: Tensor
    given: tuple[int, int]
    asked: tuple[int, int, int, int]
    label: str
    notes: tuple[Sentence, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]


def collect(
    images: Mapping[str, Any],
    masks: Mapping[str, Any] | None = None,
    places: Mapping[str, Any] | None = None,
) -> list[Frame]:
    """Every picture of sockets `image_1`, `image_2` ... with its mask, in order.

    Each socket holds an IMAGE `[B, H, W, C]`, or a list of them; `mask_2` and `place_2` belong to `image_2`
    and hold one mask for all of its pictures or one for each. Raises ValueError where nothing is connected, a
    batch is empty, masks and images do not pair, or there are over 100 pictures.
    """
    connected = {_number(name): value for name, value in images.items() if _holds(value)}
    covers = _pair(masks, "mask", connected)
    acts = _pair(places, "place", connected)
    frames: list[Frame] = []
    for number in sorted(connected):
        name = f"image_{number}"
        pixels = _split(connected[number], name, 4)
        parts = _split_masks(covers, "mask", number, len(pixels))
        places_here = _split_masks(acts, "place", number, len(pixels))
        for index, single in enumerate(pixels):
            label = f"{name}" if len(pixels) == 1 else f"{name}, picture {index + 1} of {len(pixels)},"
            frames.append(Frame(single, parts[index], label, places_here[index]))
    if not frames:
        raise InputError(say("images is empty: connect at least one image to Klein References."))
    if len(frames) > MAX_PICTURES:
        raise InputError(
            say(
                "images holds %1 pictures, but Klein References takes at most %2: is a "
                "video connected? Pick some of its frames first.",
                len(frames),
                MAX_PICTURES,
            )
        )
    return frames


def clean(frame: Frame, background: str = "white", mask_use: str = FILL) -> Picture:
    """Three channels in 0..1 on the CPU, alpha laid over the background, mask applied.

    One channel is grey, two are grey and alpha. Values outside 0..1 are clamped. Raises ValueError for NaN,
    other numbers of channels, values as large as 255, and a mask of another shape than its image.
    """
    notes: list[Sentence] = []
    if frame.pixels.shape[-1] not in (1, 2, 3, 4):
        raise InputError(
            say(
                "%1 has %2 channels, but an image has 1 (grey), 3 (colour) or 4 (colour with transparency).",
                frame.label,
                frame.pixels.shape[-1],
            )
        )
    rgb = to_rgb(to_unit(frame.pixels, frame.label, notes), background, notes)
    height, width = rgb.shape[:2]
    box = (0, 0, width, height)
    mask = None if frame.mask is None else fit_mask(frame.mask, (width, height), frame.label)
    if mask is not None and not mask.any():
        notes.append(say("all of it is used because its mask is empty"))
    elif mask is not None:
        if mask_use in (FILL, CROP_AND_FILL):
            rgb = torch.lerp(torch.full_like(rgb, BACKGROUNDS[background]), rgb, mask[..., None])
            notes.append(say("%1 outside its mask", background))
        if mask_use in (CROP, CROP_AND_FILL):
            box = _surround(mask)
            left, top, right, bottom = box
            rgb = rgb[top:bottom, left:right]
            notes.append(say("cut to its mask"))
    return Picture(rgb, (width, height), box, frame.label, tuple(notes))


def clean_place(place: Tensor, label: str) -> Tensor | None:
    """`[h, w]` -> `[1, h, w]` in 0..1 on the CPU; None where it is empty, which means everywhere."""
    check_mask(place, f"The place of {label}")
    place = place.detach().to("cpu", torch.float32).clamp(0, 1)[None]
    return place if place.any() else None


def _pair(sockets: Mapping[str, Any] | None, kind: str, images: Mapping[int, Any]) -> dict[int, Any]:
    """What is connected to sockets `kind_1` ..., by number, each with an image of its number."""
    found = {_number(name): value for name, value in (sockets or {}).items() if _holds(value)}
    for number in sorted(set(found) - set(images)):
        raise InputError(
            say(
                "%1_%2 is connected, but image_%2 is not: a %1 belongs to the image of its number.",
                kind,
                number,
            )
        )
    return found


def _split_masks(found: Mapping[int, Any], kind: str, number: int, count: int) -> list[Tensor | None]:
    """A mask, or None, for each of the `count` pictures of image `number`."""
    if number not in found:
        return [None] * count
    masks = _split(found[number], f"{kind}_{number}", 3)
    if len(masks) not in (1, count):
        raise InputError(
            say(
                "%1_%2 holds %3 masks, but image_%2 holds %4 images: connect one "
                "mask for all, or one for each.",
                kind,
                number,
                len(masks),
                count,
            )
        )
    return [*masks] if len(masks) > 1 else [*masks] * count


def _holds(value: Any) -> bool:
    return value is not None and not (isinstance(value, (list, tuple)) and all(v is None for v in value))


def _number(name: str) -> int:
    return int(re.findall(r"\d+", name)[-1])


def _split(value: Any, name: str, dimensions: int) -> list[Tensor]:
    """Single pictures `[H, W, C]` (dimensions 4) or masks `[H, W]` (3) of a batch or a list of batches."""
    batches = value if isinstance(value, (list, tuple)) else [value]
    singles: list[Tensor] = []
    for batch in batches:
        if batch is None:
            continue
        kind = "an IMAGE [batch, height, width, channels]" if dimensions == 4 else "a MASK"
        if not isinstance(batch, Tensor):
            raise InputError(
                say("%1 is a value of the kind %2, but must be %3.", name, type(batch).__name__, kind)
            )
        if batch.ndim == dimensions - 1:
            batch = batch[None]
        if batch.ndim != dimensions:
            raise InputError(say("%1 has the shape %2, but must be %3.", name, list(batch.shape), kind))
        if batch.numel() == 0:
            raise InputError(
                say(
                    "%1 is empty: its shape is %2. Check the node before it, or unplug it.",
                    name,
                    list(batch.shape),
                )
            )
        singles += batch.unbind(0)
    return singles


def _surround(mask: Tensor) -> tuple[int, int, int, int]:
    """The part of the picture that holds the mask (left, top, right, bottom), widened as far as the picture
    allows where it would be too small or too narrow for a reference.
    """
    solid = mask >= 0.5 if bool((mask >= 0.5).any()) else mask > 0
    spans = []
    for axis in (0, 1):
        hit = torch.nonzero(solid.any(dim=axis)).flatten()
        spans.append((int(hit[0]), int(hit[-1]) + 1))
    lengths = [end - start for start, end in spans]
    box = []
    for (start, end), other, limit in zip(spans, lengths[::-1], (mask.shape[1], mask.shape[0]), strict=True):
        wanted = min(limit, max(end - start, MIN_SIDE, -(-other // MAX_ASPECT)))
        begin = min(max(0, (start + end - wanted) // 2), limit - wanted)
        box.append((begin, begin + wanted))
    return box[0][0], box[1][0], box[0][1], box[1][1]
