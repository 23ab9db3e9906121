"""How a picture of klein-nano looks beside the drawing it was asked for: sharp, without a grid, clean.

The judge (`judge.py`) says whether the right thing is there; these numbers say whether it looks made. The
drawing is moved to where it fits best within the world's few pixels of jitter, since nobody asks for a place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import world

CELL = 16  # pixels of a latent cell, whose border must not show
BESIDE = (1, 2, CELL - 2, CELL - 1)  # columns (rows) beside a border, by their remainder
SHADES = 16  # of each colour channel in the palette; the neighbouring shades belong to it too
FRAME = 10  # pixels from the upper and lower edge in which only background lies


@dataclass(frozen=True)
class Looks:
    """What was measured on one picture.

    psnr: to the drawing, in dB. sharpness: the picture's gradient energy as a share of the drawing's.
    grid: gradient on the lines of the latent grid over that beside them, the drawing's own ratio being 1.
    off_palette: share of pixels in colours that the drawing does not have. unrest: standard deviation of the
    background in 255ths.
    """

    psnr: float
    sharpness: float
    grid: float
    off_palette: float
    unrest: float


def registered(picture: np.ndarray, subjects: tuple[int, ...], colour: int) -> np.ndarray:
    """The drawing of these subjects, left to right, at the places where it fits `picture` best: uint8."""
    offsets = range(-world.JITTER, world.JITTER + 1)
    step = picture.shape[1] // len(subjects)
    placed = []
    for number, subject in enumerate(subjects):
        columns = slice(step * number, step * (number + 1))
        seen = picture[:, columns].astype(np.float32)
        tried = []
        for dy in offsets:
            for dx in offsets:
                place = world.Placement(subject, dx, dy)
                # Beside itself, so that a half of a pair is cut like the half it is compared with.
                drawn = world.paint([place] * len(subjects), colour)[:, columns]
                tried.append((np.square(drawn - seen).mean(), dx, dy))
        _, dx, dy = min(tried)
        placed.append(world.Placement(subject, dx, dy))
    return world.paint(placed, colour)


def measure(picture: np.ndarray, drawing: np.ndarray) -> Looks:
    """uint8 `[H, W, 3]` beside the drawing it should be, of the same size."""
    if picture.shape != drawing.shape:
        raise ValueError(f"picture and drawing differ in size: {picture.shape} and {drawing.shape}")
    seen, asked = picture.astype(np.float32), drawing.astype(np.float32)
    frame = np.concatenate((seen[:FRAME].reshape(-1, 3), seen[-FRAME:].reshape(-1, 3)))
    return Looks(
        psnr=float(10 * np.log10(255**2 / max(np.square(seen - asked).mean(), 1e-9))),
        sharpness=_gradient_energy(seen) / _gradient_energy(asked),
        grid=_grid(seen) / _grid(asked),
        off_palette=float(1 - _palette(drawing)[tuple((picture // SHADES).reshape(-1, 3).T)].mean()),
        unrest=float(frame.std(axis=0).mean()),
    )


def _gradient_energy(picture: np.ndarray) -> float:
    return float(sum(np.square(np.diff(picture, axis=axis)).sum() for axis in (0, 1)))


def _grid(picture: np.ndarray) -> float:
    """Mean step across the lines of the grid over the mean step across the lines beside them."""
    on, beside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(picture, axis=axis)).mean(axis=(1 - axis, 2))
        places = np.arange(1, len(steps) + 1) % CELL
        on.append(steps[places == 0].mean())
        beside.append(steps[np.isin(places, BESIDE)].mean())
    return float(np.mean(on) / np.mean(beside))


def _palette(drawing: np.ndarray) -> np.ndarray:
    """bool `[256 / SHADES] * 3`: the colours of a drawing and their neighbours."""
    shades = 256 // SHADES
    cells = np.zeros((shades + 2,) * 3, bool)
    cells[tuple((drawing // SHADES).reshape(-1, 3).T + 1)] = True
    for axis in range(3):
        cells |= np.roll(cells, 1, axis) | np.roll(cells, -1, axis)
    return cells[1:-1, 1:-1, 1:-1]
