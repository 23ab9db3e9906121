"""Training pictures for the face detector: scenes of `faces.py` made harder than any picture it will see.

Backgrounds beyond the world's flat colours, faces cut by the edges or close together, many sizes, damage,
noise, blur and wrong colours, and empty pictures, so that "no face" is learnt as well.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .faces import Box, damage, place
from .world import BACKGROUNDS, COLOURS, FACES, NAMES

SIZE = 256
SMALLEST, LARGEST = 14, 190


def training_scene(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """A picture, float32 `[SIZE, SIZE, 3]` in 0..1, and the boxes of its faces."""
    picture = _background(rng)
    boxes: list[Box] = []
    drawn_boxes: list[Box] = []
    taken: list[tuple[int, int, int]] = []
    faces = int(rng.choice((0, 1, 2, 4, 7), p=(0.14, 0.22, 0.24, 0.24, 0.16)))
    largest = LARGEST if faces <= 2 else 80
    for kind in rng.permutation([True] * faces + [False] * int(rng.integers(0, 6))):
        size = round(SMALLEST * (largest / SMALLEST) ** rng.random())
        for _ in range(20):
            left, top = (int(rng.integers(-size // 4, SIZE - 3 * size // 4)) for _ in range(2))
            overlap = rng.random() * 0.15 * size
            if all(
                abs(2 * left + size - 2 * x - s) > size + s - 2 * overlap
                or abs(2 * top + size - 2 * y - s) > size + s - 2 * overlap
                for x, y, s in taken
            ):
                drawn = place(picture, _subject(rng, bool(kind)), left, top, size)
                if drawn is not None:
                    taken.append((left, top, size))
                    drawn_boxes.append(drawn.box)
                    if kind:
                        boxes.append(drawn.box)
                break
    hurt = [box for box in drawn_boxes if rng.random() < 0.35]  # things too: damage must not mean "face"
    picture = damage(picture, hurt, rng, blur=rng.uniform(0, 0.08), noise=rng.uniform(0, 0.12))
    return _disturb(picture, rng), boxes


def _subject(rng: np.random.Generator, face: bool) -> int:
    return int(rng.integers(len(FACES)) if face else rng.integers(len(FACES), len(NAMES)))


def _background(rng: np.random.Generator) -> np.ndarray:
    def colour() -> np.ndarray:
        if rng.random() < 0.7:
            return np.asarray(BACKGROUNDS[COLOURS[rng.integers(len(COLOURS))]], np.float32) / 255.0
        return rng.random(3, np.float32)

    picture = np.empty((SIZE, SIZE, 3), np.float32)
    picture[:] = colour()
    kind = rng.random()
    if kind < 0.2:
        slope = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None]
        slope = slope[:, None] if rng.random() < 0.5 else slope[None]
        picture[:] = picture * (1 - slope) + colour() * slope
    elif kind < 0.35:  # tiles of several colours
        cells = int(rng.integers(2, 7))
        coarse = np.stack([colour() for _ in range(cells * cells)]).reshape(cells, cells, 3)
        picture[:] = coarse.repeat(SIZE // cells + 1, 0).repeat(SIZE // cells + 1, 1)[:SIZE, :SIZE]
    elif kind < 0.45:  # clouds
        coarse = Image.fromarray((rng.random((8, 8, 3)) * 255).astype(np.uint8))
        picture[:] = np.asarray(coarse.resize((SIZE, SIZE), Image.BICUBIC), np.float32) / 255.0
    return picture


def _disturb(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.25:
        whole = Image.fromarray((picture * 255.0 + 0.5).astype(np.uint8))
        blurred = whole.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
        picture = np.asarray(blurred, np.float32) / 255.0
    if rng.random() < 0.4:
        picture = picture * rng.uniform(0.7, 1.2, 3).astype(np.float32)
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(0, 0.06), picture.shape).astype(np.float32)
    return np.ascontiguousarray(picture.clip(0, 1), np.float32)
