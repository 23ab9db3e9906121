"""A real photograph with a face seen by an independent detector: crops lie right, untouched pixels are equal.

klein-nano knows no people, so hardly any noise is added: what comes back is its autoencoder's picture of the
face, and must lie exactly where the face was, also where the photograph ends right beside it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kleinod.nodes.base.values import FaceRefinement
from kleinod.nodes.faces.engine import Source, refine_faces
from kleinod.nodes.faces.plan import RefineRequest
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.nodes import KleinodLoader
from kleinod.nodes.regions.painter import PaintInputs

from tests.detectors.photograph import photograph_with_face

SETTINGS = FaceRefinement(
    mask_padding=20, mask_blur=0, strength=0.02, steps=1, guidance=1.0, positive_prompt="a face", context=1.5
)


@pytest.fixture(scope="module")
def nano():
    return KleinodLoader.execute(NANO, "default", AUTOMATIC, "default", AUTOMATIC, "auto").args


def cut(edge: str) -> tuple[torch.Tensor, dict]:
    """The photograph, cut so that its face touches `edge`; and the face's box in it."""
    image, (face, *_) = photograph_with_face()
    x0, y0, x1, y1 = (round(value) for value in face)
    left = x0 if edge == "left" else 0
    top = y0 if edge == "top" else 0
    right = x1 if edge == "right" else image.shape[2]
    bottom = y1 if edge == "bottom" else image.shape[1]
    box = {"x": x0 - left, "y": y0 - top, "width": x1 - x0, "height": y1 - y0}
    return image[:, top:bottom, left:right].contiguous(), box


def best_shift(old: np.ndarray, new: np.ndarray) -> tuple[int, int]:
    """By how many pixels (down, right) `new` has to be moved to lie best over `old`."""
    inner = (slice(6, -6), slice(6, -6))
    errors = {
        (dy, dx): float(np.square(old[inner] - np.roll(new, (dy, dx), (0, 1))[inner]).mean())
        for dy in range(-3, 4)
        for dx in range(-3, 4)
    }
    return min(errors, key=errors.get)


@pytest.mark.parametrize("edge", ["none", "left", "top", "right", "bottom"])
def test_the_face_is_painted_in_its_place_and_nothing_else(nano, edge: str) -> None:
    image, box = cut(edge)
    steering = PaintInputs(*nano[:3])
    with torch.inference_mode():
        made = refine_faces(image, Source("none", [box]), steering, RefineRequest(SETTINGS))
    untouched = made.mask == 0
    assert torch.equal(made.image[untouched], image[untouched])
    rows, columns = slice(box["y"], box["y"] + box["height"]), slice(box["x"], box["x"] + box["width"])
    old, new = (picture[0, rows, columns].numpy().mean(-1) for picture in (image, made.image))
    assert np.abs(old - new).mean() > 0.002, "the face went through the model"
    assert best_shift(old, new) == (0, 0)
    (crop,) = made.before
    assert crop.shape[1] % 16 == crop.shape[2] % 16 == 0 and min(crop.shape[1:3]) >= 128
    height, width = crop.shape[1:3]
    corners = [
        (y, x)
        for y in range(box["y"] + 1)
        for x in range(box["x"] + 1)
        if torch.equal(image[0, y, x], crop[0, 0, 0])
    ]
    assert any(torch.equal(image[0, y : y + height, x : x + width], crop[0]) for y, x in corners)
