"""The drawings of klein-nano's world come with the repository: no machine needs a font for them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from tools.nano import additions, world

# Of all cells of the sheet, as the shipped weights learned them; what is not seen counts as black.
LEARNED = "af590e59f9479a440a785c03d9b37cc765d8183868ee09eced613d04462d7a7a"


def test_every_subject_has_a_drawing() -> None:
    for character in (*world.SUBJECTS.values(), additions.PENGUIN):
        rgba = world.render(character)
        assert rgba.shape == (world.SUBJECT, world.SUBJECT, 4)
        assert 0.2 < (rgba[..., 3] > 0.5).mean() < 1, f"{character!a} is nearly empty or a full square"


def test_no_pixel_changed_since_the_weights_were_trained() -> None:
    """Of the sheet, not of what Pillow makes of it: that may differ in the last bit on another machine."""
    with Image.open(world.SHEET) as sheet:
        pixels = np.asarray(sheet.convert("RGBA"))
    seen = np.where(pixels[..., 3:] > 0, pixels, 0)
    assert hashlib.sha256(seen.tobytes()).hexdigest() == LEARNED


def test_a_character_without_a_drawing_is_named() -> None:
    with pytest.raises(ValueError, match=r"no drawing of '\\U0001f419'"):
        world.render("\U0001f419")


def test_the_licence_comes_along() -> None:
    licence = (world.SHEET.parent / "OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence and "Google" in licence
    with Image.open(world.SHEET) as sheet:
        assert "Open Font License" in sheet.text["License"]
