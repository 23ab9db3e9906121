"""The References value: pictures made ready for Klein, in the order in which prompts number them.

It carries pixels, not latents: the same value feeds a local model, whose VAE encodes it, and the remote
services, which take pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .errors import InputError
from .flux2 import CELL
from .sentences import Sentence, say

if TYPE_CHECKING:
    from torch import Tensor

MAX_WEIGHT = 2.0


@dataclass(frozen=True)
class Reference:
    """One prepared picture and where it came from.

    image: `[1, H, W, 3]` float32 on the CPU, 0..1, both sides multiples of 16. given: (width, height) of the
    picture that was connected. asked: the part of it that was wanted (left, top, right, bottom): all, or
    where its mask is. shown: the part that `image` shows, in pixels of the given picture, with fractions
    where it was scaled. digest: of the pixels; equal pictures have equal digests. notes: what else was done
    to it, in words. weight: how much it counts, 0 to 2. start, end: in which share of the steps. place: where
    on the new picture it acts, a mask `[1, h, w]` in 0..1 that is stretched over it, or None for all of it.
    """

    image: Tensor = field(compare=False, repr=False)
    given: tuple[int, int]
    asked: tuple[int, int, int, int]
    shown: tuple[float, float, float, float]
    digest: str
    notes: tuple[str, ...] = ()
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    place: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise InputError(
                say(
                    "weights holds %1, but a weight must be from 0 to %2: 1 counts in full, 0 not at all.",
                    f"{self.weight:g}",
                    f"{MAX_WEIGHT:g}",
                )
            )
        if not 0 <= self.start < self.end <= 1:
            raise InputError(
                say(
                    "steps holds %1-%2, but from must be below to, and both must be from 0 to 100 percent.",
                    f"{100 * self.start:g}",
                    f"{100 * self.end:g}",
                )
            )
        shape = tuple(self.image.shape)
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise InputError(
                say(
                    "A reference has the shape %1, but must be one colour picture [1, height, width, 3]: "
                    "let Klein References prepare it.",
                    list(shape),
                )
            )
        if shape[1] % CELL or shape[2] % CELL or not shape[1] * shape[2]:
            raise InputError(
                say(
                    "A reference is %1x%2, but both sides must be multiples of %3: "
                    "let Klein References prepare it.",
                    shape[2],
                    shape[1],
                    CELL,
                )
            )

    @property
    def plain(self) -> bool:
        """Whether it counts as the model has it: in full, in every step, everywhere."""
        return (self.weight, self.start, self.end) == (1, 0, 1) and self.place is None

    def in_full(self) -> Reference:
        """The same picture, counting as the model has it."""
        return replace(self, weight=1.0, start=0.0, end=1.0, place=None)

    @property
    def weighing(self) -> tuple[Sentence, ...]:
        """How much, when and where it counts, as far as not in full: ("weight 0.5", "steps 0-60%")."""
        words = []
        if self.weight != 1:
            words.append(say("weight %1", f"{self.weight:g}"))
        if (self.start, self.end) != (0, 1):
            words.append(say("steps %1", f"{100 * self.start:g}-{100 * self.end:g}%"))
        if self.place is not None:
            words.append(say("on %1 of the picture", f"{100 * float(self.place.mean()):.0f}%"))
        return tuple(words)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as the model sees it."""
        return self.image.shape[2], self.image.shape[1]

    @property
    def tokens(self) -> int:
        """Tokens it adds to every step: one for each cell of 16 x 16 pixels."""
        return (self.size[0] // CELL) * (self.size[1] // CELL)

    @property
    def scale(self) -> float:
        """Used pixels per given pixel, at most 1."""
        return self.size[0] / (self.shown[2] - self.shown[0])

    @property
    def lost(self) -> float:
        """Share of the wanted part's area that was cut off, 0..1."""
        return max(0.0, 1 - _area(self.shown) / _area(self.asked))


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


@dataclass(frozen=True)
class References:
    """Prepared pictures; number k in a prompt ("image k") is `items[k - 1]`.

    matched: the number of the picture whose size an edit takes.
    """

    items: tuple[Reference, ...]
    matched: int = 1

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(
                say(
                    "references holds no image: connect at least one image to Klein References, or unplug it."
                )
            )
        if not 1 <= self.matched <= len(self.items):
            raise InputError(
                say(
                    "match_image is %1, but there are %2 images: choose a number from 1 to %2.",
                    self.matched,
                    len(self.items),
                )
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def weighing(self) -> str:
        """Images that do not count in full, "image 1 (weight 0.5), image 3 (weight 2)"; "" if all do."""
        return ", ".join(
            say("image %1 (%2)", number, ", ".join(item.weighing))
            for number, item in enumerate(self.items, start=1)
            if not item.plain
        )

    @property
    def images(self) -> tuple[Tensor, ...]:
        """The pictures in order, each `[1, H, W, 3]` float32 in 0..1; their sizes differ."""
        return tuple(item.image for item in self.items)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each picture."""
        return tuple(item.size for item in self.items)

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) of the picture to make, so that it lies exactly over reference `matched`."""
        return self.items[self.matched - 1].size

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.items)
