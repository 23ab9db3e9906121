"""The exam of klein-nano: 200 requests and seeds it was never trained on.

Singles ask for the subject-and-background combination that training withheld for every subject; pairs and
edits are drawn at random from thousands, their backgrounds withheld for the first subject too.
`paper(offset)` makes a fresh exam of the same kind for other offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import language, world
from .language import IMAGE_1, IMAGE_2, NOTHING, Meaning


@dataclass(frozen=True)
class Question:
    """kind: single | pair | edit | edit pair. `shown` is what must appear, left to right."""

    kind: str
    prompt: str
    seed: int
    shown: tuple[int, ...]
    colour: int
    references: tuple[world.Placement, ...] = ()
    grounds: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        return world.SIZE if len(self.shown) == 1 else world.PAIR_WIDTH

    def reference_pictures(self) -> list[np.ndarray]:
        return [world.paint([p], g) for p, g in zip(self.references, self.grounds, strict=True)]


def withheld(subject: int) -> int:
    return next(c for c in range(len(world.COLOURS)) if world.held_out(subject, c))


def paper(offset: int = 0) -> list[Question]:
    rng = np.random.default_rng(20261121 + offset)
    questions = []

    def ask(
        kind: str, meaning: Meaning, shown: tuple[int, ...], colour: int, references=(), grounds=()
    ) -> None:
        prompt = language.say(meaning, rng, plain=True)
        seed = int(rng.integers(2**31))
        questions.append(Question(kind, prompt, seed, shown, colour, tuple(references), tuple(grounds)))

    names = len(world.NAMES)
    for s in [*range(names), *rng.permutation(names)[:26].tolist()]:
        ask("single", Meaning(s, NOTHING, withheld(s)), (s,), withheld(s))
    for _ in range(60):
        a, b = (int(x) for x in rng.choice(names, 2, replace=False))
        ask("pair", Meaning(a, b, withheld(a)), (a, b), withheld(a))
    for i in range(50):
        a, b = (int(x) for x in rng.choice(names, 2, replace=False))
        colour = withheld(a)
        placed = [world.jittered(s, rng) for s in (a, b)]
        grounds = [int(rng.choice([c for c in range(len(world.COLOURS)) if c != colour])) for _ in placed]
        if i % 2 == 0:
            ask("edit", Meaning(IMAGE_1, NOTHING, colour), (a,), colour, placed[:1], grounds[:1])
        elif i % 4 == 1:
            ask("edit pair", Meaning(IMAGE_1, IMAGE_2, colour), (a, b), colour, placed, grounds)
        else:
            ask("edit pair", Meaning(IMAGE_2, IMAGE_1, colour), (b, a), colour, placed, grounds)
    return questions
