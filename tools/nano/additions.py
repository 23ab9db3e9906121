"""What the two LoRAs of klein-nano add to its world: a style and a subject it never saw.

The style is ink: grey values of the drawing and a black outline four pixels wide, on the background asked
for. The subject is a penguin, whose word the text encoder does not know; every unknown word reads alike to
it, so that with this LoRA any of them means the penguin.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from . import language, world
from .examples import TEXT_DROPOUT, Plan
from .language import IMAGE_1, NO_COLOUR, NOTHING, Meaning

STYLE, SUBJECT = "style", "subject"
PENGUIN = "\U0001f427"
PENGUIN_INDEX = language.THINGS  # one more thing after all that a slot of `Meaning` can hold
TRIGGERS = {STYLE: "ink drawing", SUBJECT: "penguin"}
OUTLINE = 4
MARGIN = 6
LUMINANCE = np.asarray((0.299, 0.587, 0.114), np.float32)

# LoRA -> kind of picture -> share of steps
KINDS: dict[str, dict[str, float]] = {
    STYLE: {"single": 0.6, "pair": 0.25, "edit": 0.15},
    SUBJECT: {"single": 0.4, "pair": 0.25, "known": 0.25, "edit": 0.1},
}


@functools.cache
def ink(character: str) -> np.ndarray:
    """An emoji in ink: premultiplied RGBA `[96, 96, 4]`."""
    rgba = np.pad(world.render(character), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    shape = Image.fromarray((rgba[..., 3] * 255).astype(np.uint8))
    grown = np.asarray(shape.filter(ImageFilter.MaxFilter(2 * OUTLINE + 1)), np.float32) / 255
    # Under the outline lies black, so only alpha tells the outline from the background.
    grey = np.repeat((rgba[..., :3] @ LUMINANCE)[..., None], 3, axis=2)
    return np.concatenate((grey, grown[..., None]), axis=2)


def character(subject: int) -> str:
    return PENGUIN if subject == PENGUIN_INDEX else world.SUBJECTS[world.NAMES[subject]]


def paint(placements: list[world.Placement], colour: int, inked: bool = False) -> np.ndarray:
    """Like `world.paint`, with the penguin among the subjects and optionally in ink."""
    draw = ink if inked else world.render
    return world.compose([(draw(character(p.subject)), p.dx, p.dy) for p in placements], colour)


def withheld(subject: int) -> int:
    """The background never shown with this subject, the penguin included."""
    return next(c for c in range(len(world.COLOURS)) if world.held_out(subject, c))


def _shown(rng: np.random.Generator, *subjects: int) -> int:
    while True:
        colour = int(rng.integers(len(world.COLOURS)))
        if not any(world.held_out(s, colour) for s in subjects):
            return colour


def _other(rng: np.random.Generator) -> int:
    return int(rng.integers(len(world.NAMES)))


def say(slots: tuple[int, int], colour: int, rng: np.random.Generator, plain: bool = False) -> str:
    """A sentence as in `language.say`; the penguin takes the place of a word that stands in for it."""
    stand_in = "robot"  # its article is the penguin's, and no other name contains it
    meaning = Meaning(*(world.NAMES.index(stand_in) if s == PENGUIN_INDEX else s for s in slots), colour)
    sentence = language.say(meaning, rng, plain)
    if PENGUIN_INDEX in slots:
        sentence = sentence.replace(stand_in, "penguin").replace(stand_in.capitalize(), "Penguin")
    return sentence


def _style_plan(kind: str, rng: np.random.Generator) -> Plan:
    placed = tuple(world.jittered(_other(rng), rng) for _ in range(2 if kind == "pair" else 1))
    subjects = [p.subject for p in placed]
    colour = _shown(rng, *subjects)
    references = ()
    slots = (subjects[0], subjects[1] if kind == "pair" else NOTHING)
    if kind == "edit":
        references = ((placed[0], _shown(rng, *subjects)),)
        slots = (IMAGE_1, NOTHING)
    sentence = say(slots, colour if rng.random() < 0.9 else NO_COLOUR, rng)
    if rng.random() < 0.5:
        sentence += f", {TRIGGERS[STYLE]}"
    return Plan(placed, colour, sentence, references, inked=True)


def _subject_plan(kind: str, rng: np.random.Generator) -> Plan:
    """The penguin alone or in a pair; "known" and "edit" keep what the model could do before."""
    subjects = [_other(rng)] if kind in ("known", "edit") else [PENGUIN_INDEX]
    if kind == "pair":
        subjects = [*subjects, _other(rng)] if rng.random() < 0.5 else [_other(rng), *subjects]
    placed = tuple(world.jittered(s, rng) for s in subjects)
    colour = _shown(rng, *subjects)
    references = ()
    slots = (subjects[0], subjects[1] if kind == "pair" else NOTHING)
    if kind == "edit":
        references = ((placed[0], _shown(rng, *subjects)),)
        slots = (IMAGE_1, NOTHING)
    return Plan(placed, colour, say(slots, colour, rng), references)


def plan(lora: str, kind: str, rng: np.random.Generator) -> Plan:
    """One example of a kind for one LoRA, as `examples.plan` gives it."""
    planned = (_style_plan if lora == STYLE else _subject_plan)(kind, rng)
    return replace(planned, sentence="") if rng.random() < TEXT_DROPOUT else planned
