"""The exam of klein-nano's two LoRAs, and a judge that knows ink and the penguin.

Requests and seeds were never trained on: every subject on the background that training withheld. The judge
is trained on nothing: it names the drawing, plain or in ink, that lies nearest to the picture.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from . import additions, world
from .additions import PENGUIN_INDEX, STYLE, SUBJECT
from .judge import Judge
from .language import NOTHING

SIDE = 32  # pixels of the reduced pictures that are compared
SHIFTS = (-1, 0, 1)  # of a reduced pixel, that is 4 pixels


@dataclass(frozen=True)
class Question:
    """loras: names of those switched on. `subject`, `inked` and `colour` are what must be seen."""

    kind: str
    prompt: str
    seed: int
    subject: int
    colour: int
    inked: bool
    loras: tuple[str, ...]


def paper(offset: int = 0) -> list[Question]:
    """64 subjects in ink, 40 penguins, 64 subjects beside a loaded penguin, 24 penguins in ink."""
    rng = np.random.default_rng(20261122 + offset)
    questions = []

    def ask(kind: str, subject: int, colour: int, *loras: str) -> None:
        prompt = additions.say((subject, NOTHING), colour, rng, plain=True)
        inked = STYLE in loras
        if inked:
            prompt += f", {additions.TRIGGERS[STYLE]}"
        seed = int(rng.integers(2**31))
        questions.append(Question(kind, prompt, seed, subject, colour, inked, loras))

    colours = range(len(world.COLOURS))
    for subject in range(len(world.NAMES)):
        ask("style", subject, additions.withheld(subject), STYLE)
    for number in range(40):
        ask("subject", PENGUIN_INDEX, colours[number % len(colours)], SUBJECT)
    for subject in range(len(world.NAMES)):
        ask("others kept", subject, additions.withheld(subject), SUBJECT)
    for number in range(24):
        ask("both", PENGUIN_INDEX, colours[number % len(colours)], STYLE, SUBJECT)
    return questions


class DrawingJudge:
    """Names what a single picture shows and whether it is in ink."""

    def __init__(self) -> None:
        self.backgrounds = Judge()

    def background(self, picture: np.ndarray) -> int | None:
        return self.backgrounds.background(picture)

    def subject(self, picture: np.ndarray) -> tuple[int, bool]:
        """uint8 `[128, 128, 3]` -> (index as in `additions`, in ink)."""
        seen = _reduced(picture)
        ground = np.median(np.concatenate((seen[:2].reshape(-1, 3), seen[-2:].reshape(-1, 3))), axis=0)
        names, colours, cover = _drawings()
        templates = colours + (1 - cover) * ground
        return names[int(np.square(templates - seen).mean((1, 2, 3)).argmin())]


def _reduced(picture: np.ndarray) -> np.ndarray:
    """uint8 `[128, 128, C]` -> means of 4 x 4 pixels, 0..1."""
    side = world.SIZE // SIDE
    return picture.reshape(SIDE, side, SIDE, side, -1).mean((1, 3)) / 255


@functools.cache
def _drawings() -> tuple[list[tuple[int, bool]], np.ndarray, np.ndarray]:
    """Every subject plain and in ink at nine places: names, premultiplied colours, coverage."""
    names, pieces = [], []
    for subject in (*range(len(world.NAMES)), PENGUIN_INDEX):
        for inked in (False, True):
            rgba = (additions.ink if inked else world.render)(additions.character(subject))
            margin = (world.SIZE - len(rgba)) // 2
            canvas = np.pad(rgba, ((margin, margin), (margin, margin), (0, 0)))
            reduced = _reduced(canvas * 255)
            for dy in SHIFTS:
                for dx in SHIFTS:
                    names.append((subject, inked))
                    pieces.append(np.roll(reduced, (dy, dx), (0, 1)))
    stack = np.stack(pieces).astype(np.float32)
    return names, stack[..., :3], stack[..., 3:]
