"""Which of the found faces are painted, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..base.errors import InputError
from ..base.fields import Field, check_fields
from ..base.sentences import say
from .detection import Face

BY_SCORE = "score"
BY_SIZE = "size"
LEFT_TO_RIGHT = "left to right"
FROM_CENTRE = "centre"
ORDERS = (BY_SIZE, BY_SCORE, LEFT_TO_RIGHT, FROM_CENTRE)


@dataclass(frozen=True)
class Choice:
    """Indices of the faces to paint, in their order, and of each other face the reason why not."""

    chosen: tuple[int, ...]
    left_out: dict[int, str] = field(default_factory=dict)


FIELDS = (
    Field(
        "order",
        BY_SIZE,
        "Which face is number 1: the largest, the surest, the leftmost, or the one nearest the middle. "
        "Decides what top_k keeps, which line of face_prompts belongs to whom, and who goes first where "
        "faces touch.",
        choices=ORDERS,
    ),
    Field("top_k", 0, "Paint only so many faces a picture. 0: all.", low=0, widget_high=1000),
    Field(
        "min_size",
        0,
        "Leave out faces whose longer side has fewer pixels. 0: none. Below about 24 there is nothing left "
        "to recognise.",
        low=0,
        widget_high=16384,
    ),
    Field(
        "max_size",
        0,
        "Leave out faces whose longer side has more pixels. 0: none.",
        low=0,
        widget_high=16384,
    ),
)


@dataclass(frozen=True)
class FaceFilter:
    """order: one of ORDERS. top_k: only so many, 0 all. min_size, max_size: longer side of a face in pixels,
    0 any. Raises InputError naming the input."""

    order: str = BY_SIZE
    top_k: int = 0
    min_size: int = 0
    max_size: int = 0

    def __post_init__(self) -> None:
        check_fields(self, FIELDS)
        if self.max_size and self.min_size > self.max_size:
            raise InputError(
                say(
                    "min_size is %1 and max_size %2, so no face can fit: "
                    "raise max_size, or set it to 0 for no limit.",
                    self.min_size,
                    self.max_size,
                )
            )


def choose_faces(faces: Sequence[Face], picture: tuple[int, int], filter: FaceFilter) -> Choice:
    """Filter by size, order, then keep the first `top_k`. picture: (width, height).

    Ties keep the order given. `centre`: nearest to the middle of the picture first.
    """
    left_out: dict[int, str] = {}
    fitting: list[int] = []
    for index, face in enumerate(faces):
        size = max(face.width, face.height)
        if size < filter.min_size:
            left_out[index] = say("%1 px are less than min_size %2", f"{size:.0f}", filter.min_size)
        elif filter.max_size and size > filter.max_size:
            left_out[index] = say("%1 px are more than max_size %2", f"{size:.0f}", filter.max_size)
        else:
            fitting.append(index)

    def key(index: int) -> float:
        face = faces[index]
        x, y = face.centre
        if filter.order == BY_SCORE:
            return -face.score
        if filter.order == BY_SIZE:
            return -face.area
        if filter.order == LEFT_TO_RIGHT:
            return x
        return (x - picture[0] / 2) ** 2 + (y - picture[1] / 2) ** 2

    fitting.sort(key=key)
    kept = fitting[: filter.top_k] if filter.top_k else fitting
    left_out |= {index: say("beyond top_k %1", filter.top_k) for index in fitting[len(kept) :]}
    return Choice(tuple(kept), left_out)


def reading_ranks(faces: Sequence[Face]) -> list[int]:
    """The place of every face from left to right: a number that no order, limit or top_k changes."""
    places = sorted(range(len(faces)), key=lambda i: (*faces[i].centre, i))
    ranks = [0] * len(faces)
    for rank, index in enumerate(places):
        ranks[index] = rank
    return ranks
