"""Pictures with several small faces, for the face detector and the face refiner of klein-nano's world.

A face here is any of `world.FACES`: the smileys, animals and figures that look at you. Everything else of the
world (food, plants, things) is not. Faces are drawn by the same code as the pictures klein-nano was trained
on, only smaller, so that a crop around one, enlarged, is a picture of that world.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .world import BACKGROUNDS, COLOURS, FACES, NAMES, SUBJECT, drawing

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawn:
    """A subject (index in `world.NAMES`) and its tight box x0, y0, x1, y1 in pixels; it may leave the
    picture, where the box ends at the edge."""

    subject: int
    box: Box

    @property
    def name(self) -> str:
        return NAMES[self.subject]


@functools.lru_cache(maxsize=4096)
def small_drawing(subject: int, size: int) -> np.ndarray:
    """`world.drawing` at `size` pixels: float32 RGBA, alpha premultiplied."""
    planes = [Image.fromarray(plane) for plane in np.moveaxis(drawing(subject), -1, 0)]
    kernel = Image.BOX if size < SUBJECT else Image.BICUBIC
    resized = [np.asarray(plane.resize((size, size), kernel)) for plane in planes]
    return np.stack(resized, axis=-1).clip(0, 1)


def place(picture: np.ndarray, subject: int, left: int, top: int, size: int) -> Drawn | None:
    """Draws into the float picture `[H, W, 3]`, also partly outside; None when nothing of it is inside."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x0 >= x1 or y0 >= y1:
        return None
    rgba = small_drawing(subject, size)[y0 - top : y1 - top, x0 - left : x1 - left]
    region = picture[y0:y1, x0:x1]
    region *= 1.0 - rgba[..., 3:]
    region += rgba[..., :3]
    rows, columns = (np.flatnonzero((rgba[..., 3] > 0.5).any(axis=axis)) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return None
    box = (x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1)
    return Drawn(subject, tuple(float(edge) for edge in box))


def draw_scene(
    rng: np.random.Generator,
    width: int = 384,
    height: int = 256,
    faces: int = 5,
    things: int = 2,
    sizes: tuple[int, int] = (28, 64),
    colour: int | None = None,
    gap: int = 6,
) -> tuple[np.ndarray, list[Drawn], list[Drawn]]:
    """A flat background with `faces` faces and `things` other subjects that do not touch each other.

    Returns the picture, float32 `[H, W, 3]` in 0..1, the faces and the things, top to bottom as drawn; fewer
    where the picture is full. `colour` indexes `world.COLOURS`, None picks one.
    """
    chosen = int(rng.integers(len(COLOURS))) if colour is None else colour
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = np.asarray(BACKGROUNDS[COLOURS[chosen]], np.float32) / 255.0
    others = [index for index, name in enumerate(NAMES) if name not in FACES]
    wanted = [int(rng.integers(len(FACES))) for _ in range(faces)]
    wanted += [int(rng.choice(others)) for _ in range(things)]
    taken: list[tuple[int, int, int]] = []
    found: list[Drawn] = []
    for subject in wanted:
        size = int(rng.integers(sizes[0], sizes[1] + 1))
        for _ in range(40):
            left, top = int(rng.integers(0, width - size + 1)), int(rng.integers(0, height - size + 1))
            if all(_apart(left, top, size, other, gap) for other in taken):
                taken.append((left, top, size))
                found.append(place(picture, subject, left, top, size))
                break
    found.sort(key=lambda drawn: (drawn.box[1], drawn.box[0]))
    count = len(FACES)
    return picture, [d for d in found if d.subject < count], [d for d in found if d.subject >= count]


def _apart(left: int, top: int, size: int, other: tuple[int, int, int], gap: int) -> bool:
    x, y, side = other
    return left >= x + side + gap or x >= left + size + gap or top >= y + side + gap or y >= top + size + gap


def damage(
    picture: np.ndarray, boxes: list[Box], rng: np.random.Generator, blur: float = 0.04, noise: float = 0.06
) -> np.ndarray:
    """The picture with each box blurred (radius = `blur` x its side) and noised: faces that need refining."""
    damaged = picture.clip(0, 1)
    for box in boxes:
        x0, y0, x1, y1 = (round(edge) for edge in box)
        radius = blur * max(x1 - x0, y1 - y0)
        whole = Image.fromarray((damaged * 255.0 + 0.5).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(radius)
        )
        region = np.asarray(whole, np.float32)[y0:y1, x0:x1] / 255.0
        damaged[y0:y1, x0:x1] = region + rng.normal(0, noise, region.shape).astype(np.float32)
    return damaged.clip(0, 1)
