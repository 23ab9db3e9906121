"""The drawn world of klein-nano: what can be named, how it is drawn, how people ask for it.

Drawings are those of Noto Emoji (Google, SIL Open Font License 1.1): one bitmap strike of 136 x 128 pixels
each, kept as `drawings/sheet.png` (`draw_sheet.py`), scaled once and kept. A single picture is 128 x 128 with
the subject at one of nine places around the middle; a pair is 192 x 128, each half drawn like a narrow
single, so that a subject falls on the same phases of the 16-pixel latent grid in both. Nine places, not all
81 within the same few pixels: neighbours a pixel apart are what a net of this size mixes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SHEET = Path(__file__).with_name("drawings") / "sheet.png"
CHARACTERS = "Characters"  # the sheet's text that names its cells, as code points in hexadecimal
CELL = (136, 128)
STRIKE = 109  # the only size the bitmap font has that the sheet was made from

SIZE = 128
PAIR_WIDTH = 192
SUBJECT = 84
JITTER = 4  # pixels between neighbouring places

SUBJECTS: dict[str, str] = {
    # faces
    "smiling face": "\U0001f603",
    "angry face": "\U0001f621",
    "cool face": "\U0001f60e",
    "sleepy face": "\U0001f634",
    "cat": "\U0001f431",
    "dog": "\U0001f436",
    "fox": "\U0001f98a",
    "bear": "\U0001f43b",
    "panda": "\U0001f43c",
    "lion": "\U0001f981",
    "tiger": "\U0001f42f",
    "cow": "\U0001f42e",
    "pig": "\U0001f437",
    "frog": "\U0001f438",
    "monkey": "\U0001f435",
    "koala": "\U0001f428",
    "rabbit": "\U0001f430",
    "robot": "\U0001f916",
    "clown": "\U0001f921",
    "alien": "\U0001f47d",
    "ghost": "\U0001f47b",
    "skull": "\U0001f480",
    "pumpkin": "\U0001f383",
    "owl": "\U0001f989",
    # food
    "red apple": "\U0001f34e",
    "green apple": "\U0001f34f",
    "lemon": "\U0001f34b",
    "banana": "\U0001f34c",
    "watermelon": "\U0001f349",
    "strawberry": "\U0001f353",
    "pineapple": "\U0001f34d",
    "grapes": "\U0001f347",
    "tomato": "\U0001f345",
    "eggplant": "\U0001f346",
    "carrot": "\U0001f955",
    "mushroom": "\U0001f344",
    "pizza": "\U0001f355",
    "burger": "\U0001f354",
    "donut": "\U0001f369",
    "cake": "\U0001f382",
    # plants and sky
    "tree": "\U0001f333",
    "cactus": "\U0001f335",
    "sunflower": "\U0001f33b",
    "rose": "\U0001f339",
    "star": "\U00002b50",
    "moon": "\U0001f319",
    "cloud": "\U00002601",
    "fire": "\U0001f525",
    "snowman": "\U000026c4",
    "rainbow": "\U0001f308",
    # things
    "red heart": "\U00002764",
    "blue car": "\U0001f699",
    "bus": "\U0001f68c",
    "rocket": "\U0001f680",
    "sailboat": "\U000026f5",
    "house": "\U0001f3e0",
    "soccer ball": "\U000026bd",
    "basketball": "\U0001f3c0",
    "guitar": "\U0001f3b8",
    "gift": "\U0001f381",
    "balloon": "\U0001f388",
    "umbrella": "\U00002614",
    "bell": "\U0001f514",
    "crown": "\U0001f451",
}
FACES = tuple(SUBJECTS)[:24]

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 244),
    "red": (212, 84, 80),
    "orange": (240, 152, 70),
    "yellow": (250, 220, 104),
    "green": (104, 182, 116),
    "blue": (92, 146, 222),
    "purple": (154, 110, 200),
    "pink": (246, 176, 204),
}

NAMES = tuple(SUBJECTS)
COLOURS = tuple(BACKGROUNDS)


@dataclass(frozen=True)
class Placement:
    """One subject of a picture: its index in `NAMES` and its offset in pixels from the regular place."""

    subject: int
    dx: int = 0
    dy: int = 0


@functools.cache
def _read_sheet() -> dict[str, Image.Image]:
    """Every drawing that the repository has, by its character, as RGBA of the size `CELL`."""
    with Image.open(SHEET) as file:
        characters = [chr(int(code, 16)) for code in file.text[CHARACTERS].split()]
        sheet = file.convert("RGBA")
    width, height = CELL
    columns = sheet.width // width
    cells = {}
    for place, character in enumerate(characters):
        left, top = place % columns * width, place // columns * height
        cells[character] = sheet.crop((left, top, left + width, top + height))
    return cells


@functools.cache
def render(character: str) -> np.ndarray:
    """One emoji alone as float32 RGBA `[SUBJECT, SUBJECT, 4]` in 0..1, alpha premultiplied."""
    strike = _read_sheet().get(character)
    if strike is None:
        raise ValueError(f"{SHEET.name} has no drawing of {character!a}: add it with tools.nano.draw_sheet.")
    cut = strike.crop(strike.getbbox())
    side = max(cut.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    rgba = np.asarray(square.resize((SUBJECT, SUBJECT), Image.LANCZOS), np.float32) / 255.0
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


def drawing(subject: int) -> np.ndarray:
    """The subject of that index in `NAMES` alone, as `render` gives it."""
    return render(SUBJECTS[NAMES[subject]])


def paint(placements: list[Placement], colour: int) -> np.ndarray:
    """A picture of one or two subjects, left to right, as uint8 `[128, 128 or 192, 3]`."""
    return compose([(drawing(p.subject), p.dx, p.dy) for p in placements], colour)


def compose(pieces: list[tuple[np.ndarray, int, int]], colour: int) -> np.ndarray:
    """Square premultiplied RGBA pieces, each with its offset, side by side as `paint` places its subjects.

    What of a piece lies outside the picture is cut off; pieces of `SUBJECT` pixels never do.
    """
    width = SIZE if len(pieces) == 1 else PAIR_WIDTH
    picture = np.empty((SIZE, width, 3), np.float32)
    picture[:] = np.asarray(BACKGROUNDS[COLOURS[colour]], np.float32) / 255.0
    step = width // len(pieces)
    for i, (rgba, dx, dy) in enumerate(pieces):
        side = len(rgba)
        left, top = step * i + (step - side) // 2 + dx, (SIZE - side) // 2 + dy
        cut = slice(max(0, -left), side - max(0, left + side - width))
        rgba = rgba[:, cut]
        left = max(0, left)
        region = picture[top : top + side, left : left + rgba.shape[1]]
        region *= 1.0 - rgba[..., 3:]
        region += rgba[..., :3]
    return (picture.clip(0, 1) * 255.0 + 0.5).astype(np.uint8)


def jittered(subject: int, rng: np.random.Generator) -> Placement:
    """The subject at one of its nine places."""
    dx, dy = JITTER * rng.integers(-1, 2, 2)
    return Placement(subject, int(dx), int(dy))


def anywhere(subject: int, rng: np.random.Generator) -> Placement:
    """The subject at any pixel among its places, as pictures from elsewhere show it."""
    dx, dy = rng.integers(-JITTER, JITTER + 1, 2)
    return Placement(subject, int(dx), int(dy))


def with_article(name: str) -> str:
    if name in ("grapes", "fire"):
        return name
    return ("an " if name[0] in "aeiou" else "a ") + name


def held_out(subject: int, colour: int) -> bool:
    """One subject-and-colour combination in eight is never shown in training; the exam asks for these."""
    return (subject * 5 + colour) % len(COLOURS) == 0
