"""Training examples of klein-nano: pictures, references and sentences that belong together.

Here they are only planned; `stock.py` keeps many plans as tensors, `canvas.py` draws them where the net is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import language, world
from .language import IMAGE_1, IMAGE_2, NO_COLOUR, NOTHING, Meaning

# kind -> share of steps
KINDS: dict[str, float] = {
    "single": 0.38,
    "pair": 0.27,
    "edit": 0.12,
    "edit of two": 0.04,
    "pair with reference": 0.07,
    "pair of references": 0.12,
}
TEXT_DROPOUT = 0.12
LOOSE = 0.25  # share of references that do not stand at one of the world's nine places


@dataclass(frozen=True)
class Plan:
    """One training example before it is drawn: what stands where, on which ground, and how it is asked for.

    references: each a subject and its ground. inked: drawn by the style of `additions.py`.
    """

    placed: tuple[world.Placement, ...]
    colour: int
    sentence: str
    references: tuple[tuple[world.Placement, int], ...] = ()
    inked: bool = False


def _shown(rng: np.random.Generator, subjects: list[int]) -> int:
    """A background that training may show with these subjects."""
    while True:
        colour = int(rng.integers(len(world.COLOURS)))
        if not any(world.held_out(s, colour) for s in subjects):
            return colour


def _subject(rng: np.random.Generator) -> world.Placement:
    return world.jittered(int(rng.integers(len(world.NAMES))), rng)


def _meant(kind: str, rng: np.random.Generator) -> tuple[Plan, Meaning]:
    first, second = _subject(rng), _subject(rng)
    if kind in ("single", "pair"):
        placed = (first,) if kind == "single" else (first, second)
        colour = _shown(rng, [p.subject for p in placed])
        said = colour if rng.random() < 0.9 else NO_COLOUR
        right = second.subject if kind == "pair" else NOTHING
        return Plan(placed, colour, ""), Meaning(first.subject, right, said)

    grounds = [_shown(rng, [p.subject]) for p in (first, second)]
    references = [
        (world.anywhere(p.subject, rng) if rng.random() < LOOSE else p, ground)
        for p, ground in zip((first, second), grounds, strict=True)
    ]
    keep = rng.random() < 0.15
    if kind in ("edit", "edit of two"):
        which = int(rng.integers(2)) if kind == "edit of two" else 0
        placed = (first, second)[which]
        colour = grounds[which] if keep else _shown(rng, [placed.subject])
        shown = tuple(references if kind == "edit of two" else references[:1])
        slot = (IMAGE_1, IMAGE_2)[which]
        return Plan((placed,), colour, "", shown), Meaning(slot, NOTHING, NO_COLOUR if keep else colour)

    colour = grounds[0] if keep else _shown(rng, [first.subject, second.subject])
    swap = rng.random() < 0.5
    placed = (second, first) if swap else (first, second)
    if kind == "pair with reference":
        slots = (IMAGE_1, second.subject)
        references = references[:1]
    else:
        slots = (IMAGE_1, IMAGE_2)
    left, right = slots[::-1] if swap else slots
    return Plan(placed, colour, "", tuple(references)), Meaning(left, right, NO_COLOUR if keep else colour)


def plan(kind: str, rng: np.random.Generator) -> Plan:
    """One example of a kind, its sentence left out now and then so that guidance works."""
    planned, meaning = _meant(kind, rng)
    return replace(planned, sentence=language.say(Meaning() if rng.random() < TEXT_DROPOUT else meaning, rng))
