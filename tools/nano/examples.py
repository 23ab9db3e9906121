"""Training examples of klein-nano: pictures, references and sentences that belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import language, world
from .codec import LinearCode, fold
from .language import IMAGE_1, IMAGE_2, NO_COLOUR, NOTHING, Meaning

# kind -> (share of steps, batch size); sizes make one step of every kind cost about the same
KINDS: dict[str, tuple[float, int]] = {
    "single": (0.38, 32),
    "pair": (0.27, 22),
    "edit": (0.12, 16),
    "edit of two": (0.04, 11),
    "pair with reference": (0.07, 14),
    "pair of references": (0.12, 10),
}
TEXT_DROPOUT = 0.12


@dataclass(frozen=True)
class Batch:
    """latent `[B, 4*KEPT, h, w]`, references each `[B, 4*KEPT, 8, 8]`, one sentence a row."""

    latent: Tensor
    references: list[Tensor]
    sentences: list[str]


def _shown(rng: np.random.Generator, subjects: list[int]) -> int:
    """A background that training may show with these subjects."""
    while True:
        colour = int(rng.integers(len(world.COLOURS)))
        if not any(world.held_out(s, colour) for s in subjects):
            return colour


def _subject(rng: np.random.Generator) -> world.Placement:
    return world.jittered(int(rng.integers(len(world.NAMES))), rng)


def _example(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], Meaning]:
    first, second = _subject(rng), _subject(rng)
    if kind == "single":
        colour = _shown(rng, [first.subject])
        said = colour if rng.random() < 0.9 else NO_COLOUR
        return world.paint([first], colour), [], Meaning(first.subject, NOTHING, said)
    if kind == "pair":
        colour = _shown(rng, [first.subject, second.subject])
        said = colour if rng.random() < 0.9 else NO_COLOUR
        return world.paint([first, second], colour), [], Meaning(first.subject, second.subject, said)

    grounds = [_shown(rng, [p.subject]) for p in (first, second)]
    pictures = [world.paint([p], ground) for p, ground in zip((first, second), grounds, strict=True)]
    keep = rng.random() < 0.15
    if kind == "edit":
        colour = grounds[0] if keep else _shown(rng, [first.subject])
        said = NO_COLOUR if keep else colour
        return world.paint([first], colour), pictures[:1], Meaning(IMAGE_1, NOTHING, said)
    if kind == "edit of two":
        which = int(rng.integers(2))
        placed = (first, second)[which]
        colour = grounds[which] if keep else _shown(rng, [placed.subject])
        said = NO_COLOUR if keep else colour
        return world.paint([placed], colour), pictures, Meaning((IMAGE_1, IMAGE_2)[which], NOTHING, said)

    colour = grounds[0] if keep else _shown(rng, [first.subject, second.subject])
    said = NO_COLOUR if keep else colour
    swap = rng.random() < 0.5
    order = [second, first] if swap else [first, second]
    if kind == "pair with reference":
        slots = (IMAGE_1, second.subject)
        pictures = pictures[:1]
    else:
        slots = (IMAGE_1, IMAGE_2)
    left, right = slots[::-1] if swap else slots
    return world.paint(order, colour), pictures, Meaning(left, right, said)


def make_batch(kind: str, code: LinearCode, rng: np.random.Generator, size: int | None = None) -> Batch:
    rows = [_example(kind, rng) for _ in range(size or KINDS[kind][1])]
    latent = fold(code.encode(torch.from_numpy(np.stack([row[0] for row in rows]))))
    references = [
        fold(code.encode(torch.from_numpy(np.stack([row[1][k] for row in rows]))))
        for k in range(len(rows[0][1]))
    ]
    sentences = [language.say(Meaning() if rng.random() < TEXT_DROPOUT else row[2], rng) for row in rows]
    return Batch(latent, references, sentences)
