"""From what is plugged in to a References value: collect, clean, size, resample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..base.fields import check_choice
from ..base.pictures import BACKGROUNDS
from ..base.references import Reference, References
from .pictures import FILL, MASK_USES, Picture, clean, clean_place, collect
from .resample import resize
from .sizing import AUTO, SizePlan, plan_sizes
from .weights import parse_steps, parse_weights


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared. size: one of `sizing.POLICIES`; megapixels: for those that name them.

    match_image: the number of the picture whose size an edit takes. background: behind transparency and
    masks. mask_use: one of `pictures.MASK_USES`. weights, steps: one entry an image, as `weights` reads them.
    """

    size: str = AUTO
    megapixels: float = 1.0
    match_image: int = 1
    background: str = "white"
    mask_use: str = FILL
    weights: str = ""
    steps: str = ""

    def __post_init__(self) -> None:
        for name, choices in (("background", tuple(BACKGROUNDS)), ("mask_use", MASK_USES)):
            check_choice(name, getattr(self, name), choices)


def prepare_references(
    images: Mapping[str, Any],
    preparation: Preparation,
    masks: Mapping[str, Any] | None = None,
    places: Mapping[str, Any] | None = None,
) -> References:
    """References of sockets `image_1` ... with masks `mask_1` ..., as `pictures.collect` reads them, acting
    where `place_1` ... say.

    Raises ValueError for what cannot be a reference; see `pictures` and `sizing`.
    """
    frames = collect(images, masks, places)
    pictures = [clean(frame, preparation.background, preparation.mask_use) for frame in frames]
    weights = parse_weights(preparation.weights, len(frames))
    spans = parse_steps(preparation.steps, len(frames))
    fits = plan_sizes(
        [picture.size for picture in pictures],
        preparation.size,
        preparation.megapixels,
        [picture.label for picture in pictures],
    )
    items = [
        replace(
            make_reference(picture, fit),
            weight=weight,
            start=start,
            end=end,
            place=None if frame.place is None else clean_place(frame.place, frame.label),
        )
        for frame, picture, fit, weight, (start, end) in zip(
            frames, pictures, fits, weights, spans, strict=True
        )
    ]
    return References(tuple(items), preparation.match_image)


def make_reference(picture: Picture, fit: SizePlan) -> Reference:
    """Cut and scale one picture as planned. Without scaling its pixels stay what they are, bit for bit."""
    left, top, right, bottom = fit.shown
    if fit.scaled:
        pixels = resize(picture.pixels, fit.shown, fit.used)
    else:
        pixels = picture.pixels[int(top) : int(bottom), int(left) : int(right)]
    image = pixels.contiguous()[None]
    x, y = picture.asked[:2]
    return Reference(
        image,
        given=picture.given,
        asked=picture.asked,
        shown=(x + left, y + top, x + right, y + bottom),
        digest=digest_of(image),
        notes=picture.notes,
    )


def digest_of(image: Tensor) -> str:
    """SHA-256 of shape and float32 values: equal for equal pictures, whoever made them."""
    pixels = image.detach().to("cpu", torch.float32).contiguous()
    shape = repr(tuple(pixels.shape)).encode("ascii")
    return hashlib.sha256(shape + pixels.numpy().tobytes()).hexdigest()
