"""What a face detector gives and what it is asked: the contract between the back ends and the refiner."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class Face:
    """One found face.

    box: x0, y0, x1, y1 in pixels of the picture, floats, origin at the top left corner, x1 and y1 exclusive;
    always inside the picture. score: 0..1. mask: float32 `[H, W]` in 0..1 over the whole picture where the
    detector draws outlines, else None. label: the detector's name of the class.
    """

    box: tuple[float, float, float, float]
    score: float = 1.0
    mask: torch.Tensor | None = field(default=None, compare=False, repr=False)
    label: str = "face"

    def __post_init__(self) -> None:
        if len(self.box) != 4 or not all(math.isfinite(edge) for edge in self.box):
            raise ValueError(
                f"A face's box is {self.box}, but it must be four numbers: left, top, right, bottom."
            )
        if self.box[2] <= self.box[0] or self.box[3] <= self.box[1]:
            raise ValueError(
                f"A face's box is {self.box}, but right and bottom must lie beyond left and top."
            )

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Detector(Protocol):
    """Finds faces in one picture. `name` is what the user picked, fit for reports."""

    name: str

    def detect(self, image: torch.Tensor, confidence: float) -> list[Face]:
        """Faces of `image` (`[H, W, 3]`, float32 in 0..1, RGB) scored `confidence` or more, best first."""
        ...
