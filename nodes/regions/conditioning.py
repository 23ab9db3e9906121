"""Conditioning for crops: what speaks of the whole picture goes, what is said of each part comes together.

A conditioning is ComfyUI's list of `[tensor [B, tokens, width], {...}]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

REFERENCES = "reference_latents"
# Keys that place something in the whole picture. On a crop the model would follow them to the wrong place;
# references of the whole, above all, would make it draw the whole again.
OF_THE_WHOLE_PICTURE = {
    REFERENCES: "reference images",
    "area": "areas",
    "mask": "masks",
    "mask_strength": "",
    "set_area_to_bounds": "",
    "control": "ControlNet",
    "control_apply_to_uncond": "",
    "gligen": "GLIGEN boxes",
    "concat_latent_image": "an inpainting latent",
    "concat_mask": "",
}

Conditioning = list[list[Any]]


def strip_picture(conditioning: Conditioning) -> tuple[Conditioning, tuple[str, ...]]:
    """A copy without anything that belongs to the whole picture, and the names of what was there."""
    found = {
        name
        for _, options in conditioning
        for key, title in OF_THE_WHOLE_PICTURE.items()
        if title and options.get(key) is not None
        for name in (_name_controls(options[key], title) if key == "control" else [title])
    }
    stripped = [
        [tensor, {key: value for key, value in options.items() if key not in OF_THE_WHOLE_PICTURE}]
        for tensor, options in conditioning
    ]
    return stripped, tuple(sorted(found))


def _name_controls(control: Any, usual: str) -> list[str]:
    """Of a chain of them, by what each calls itself: weights of references travel as one, too."""
    names = []
    while control is not None:
        names.append(getattr(control, "title", usual))
        control = getattr(control, "previous_controlnet", None)
    return names


def with_references(
    conditioning: Conditioning, latents: Sequence[Tensor], control: Any = None
) -> Conditioning:
    """A copy whose references are `latents`, each `[B or 1, 128, h, w]`. control: their weights."""
    more = {} if control is None else {"control": control}
    return [[tensor, {**options, REFERENCES: list(latents), **more}] for tensor, options in conditioning]


def fits_one_batch(first: Conditioning, second: Conditioning) -> bool:
    """Whether two conditionings can be rows of one batch."""
    if first is second:
        return True
    if len(first) != 1 or len(second) != 1:
        return False
    (one, left), (other, right) = first[0], second[0]
    return (
        one.shape == other.shape
        and len(one) == 1
        and left.keys() == right.keys()
        and all(_stackable(left[key], right[key]) for key in left)
    )


def stack_rows(conditionings: Sequence[Conditioning]) -> Conditioning:
    """One conditioning with a row for each; all must fit (`fits_one_batch`)."""
    first = conditionings[0]
    if all(conditioning is first for conditioning in conditionings):
        return first
    options = {
        key: torch.cat([conditioning[0][1][key] for conditioning in conditionings])
        if isinstance(value, Tensor)
        else value
        for key, value in first[0][1].items()
    }
    return [[torch.cat([conditioning[0][0] for conditioning in conditionings]), options]]


def _stackable(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape
    return left is right or left == right
