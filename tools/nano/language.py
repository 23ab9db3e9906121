"""How people ask for pictures of klein-nano's world, and what each request means.

A request is read into three slots: what stands left, what stands right, which background. A slot may also
hold "image 1" or "image 2" (a reference), or nothing. `say` turns slots into one of many English sentences;
the text encoder is trained to turn the sentence back into slots, so this file is the only place that knows
the grammar.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .world import COLOURS, NAMES, with_article

NOTHING = len(NAMES)
IMAGE_1 = len(NAMES) + 1
IMAGE_2 = len(NAMES) + 2
THINGS = len(NAMES) + 3
NO_COLOUR = len(COLOURS)
COLOUR_CLASSES = len(COLOURS) + 1

ANYTHING_ELSE = (
    "",
    "",
    "",
    "blurry",
    "low quality",
    "blurry, low quality",
    "ugly, deformed, noisy",
    "text, watermark",
    "bad anatomy, jpeg artifacts",
    "worst quality",
    "lowres, cropped",
    "oversaturated",
    "duplicate, extra limbs",
    "nothing",
    "an empty picture",
    "something nice",
    "a picture",
)


@dataclass(frozen=True)
class Meaning:
    """Slots: indices into `NAMES` (or NOTHING, IMAGE_1, IMAGE_2) and into `COLOURS` (or NO_COLOUR)."""

    left: int = NOTHING
    right: int = NOTHING
    colour: int = NO_COLOUR


def _thing(slot: int, rng: np.random.Generator) -> str:
    if slot in (IMAGE_1, IMAGE_2):
        number = 1 if slot == IMAGE_1 else 2
        return str(
            rng.choice(
                [
                    f"image {number}",
                    f"image {number}",
                    f"image {number}",
                    f"Image {number}",
                    f"the subject of image {number}",
                    f"the object in image {number}",
                    f"the thing from image {number}",
                ]
            )
        )
    name = NAMES[slot]
    return str(rng.choice([with_article(name), with_article(name), with_article(name), name, f"the {name}"]))


def _scene(meaning: Meaning, rng: np.random.Generator) -> str:
    left = _thing(meaning.left, rng)
    if meaning.right == NOTHING:
        return left
    right = _thing(meaning.right, rng)
    return str(
        rng.choice(
            [
                f"{left} next to {right}",
                f"{left} next to {right}",
                f"{left} next to {right}",
                f"{left} beside {right}",
                f"{left} and {right}",
                f"{left} and {right} side by side",
                f"{left} to the left of {right}",
                f"{right} to the right of {left}",
                f"{left} on the left and {right} on the right",
                f"{left} with {right}",
            ]
        )
    )


def say(meaning: Meaning, rng: np.random.Generator, plain: bool = False) -> str:
    """One sentence for `meaning`; `plain` gives the canonical form of the documentation."""
    if meaning == Meaning():
        return "" if plain else str(rng.choice(ANYTHING_ELSE))
    if plain:
        text = "image 1" if meaning.left == IMAGE_1 else "image 2" if meaning.left == IMAGE_2 else ""
        text = text or with_article(NAMES[meaning.left])
        if meaning.right != NOTHING:
            right = {IMAGE_1: "image 1", IMAGE_2: "image 2"}.get(meaning.right)
            text += " next to " + (right or with_article(NAMES[meaning.right]))
        if meaning.colour != NO_COLOUR:
            colour = COLOURS[meaning.colour]
            text += f" on {'an' if colour[0] in 'aeiou' else 'a'} {colour} background"
        return text
    scene = _scene(meaning, rng)
    if meaning.colour != NO_COLOUR:
        colour = COLOURS[meaning.colour]
        article = "an" if colour[0] in "aeiou" else "a"
        scene = str(
            rng.choice(
                [
                    f"{scene} on {article} {colour} background",
                    f"{scene} on {article} {colour} background",
                    f"{scene} on {article} {colour} background",
                    f"{scene} on {colour}",
                    f"{scene} with {article} {colour} background",
                    f"{scene}, {colour} background",
                    f"{scene} in front of {article} {colour} background",
                    f"{article} {colour} background with {scene}",
                    f"{scene} against {article} {colour} background",
                    f"on {article} {colour} background, {scene}",
                    f"{scene}, the background is {colour}",
                ]
            )
        )
    if rng.random() < 0.3:
        lead = "put " if meaning.left in (IMAGE_1, IMAGE_2) else "a picture of "
        scene = (
            str(
                rng.choice(
                    [
                        lead,
                        lead,
                        "a drawing of ",
                        "an emoji of ",
                        "show ",
                        "draw ",
                        "a photo of ",
                        "Please make ",
                        "",
                    ]
                )
            )
            + scene
        )
    if rng.random() < 0.2:
        scene += str(
            rng.choice([".", ", high quality", ", best quality", ", centered", "!", ", flat design"])
        )
    if rng.random() < 0.3:
        scene = scene[:1].upper() + scene[1:]
    return scene


def random_meaning(rng: np.random.Generator) -> Meaning:
    """Slots as people use them: mostly single subjects and pairs, some references, sometimes no colour."""

    def thing() -> int:
        return int(rng.integers(len(NAMES)))

    colour = int(rng.integers(len(COLOURS))) if rng.random() < 0.8 else NO_COLOUR
    kind = rng.random()
    if kind < 0.06:
        return Meaning()
    if kind < 0.42:
        return Meaning(thing(), NOTHING, colour)
    if kind < 0.72:
        return Meaning(thing(), thing(), colour)
    if kind < 0.82:
        return Meaning(IMAGE_1 if rng.random() < 0.8 else IMAGE_2, NOTHING, colour)
    if kind < 0.92:
        return Meaning(IMAGE_1, IMAGE_2, colour) if rng.random() < 0.5 else Meaning(IMAGE_2, IMAGE_1, colour)
    image = IMAGE_1 if rng.random() < 0.8 else IMAGE_2
    return Meaning(image, thing(), colour) if rng.random() < 0.5 else Meaning(thing(), image, colour)
