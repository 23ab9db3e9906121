"""The size a given picture is brought to before the VAE sees it."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import InputError
from ..base.flux2 import CELL, MAX_SIZE, MIN_SIZE
from ..base.sentences import Sentence, say


@dataclass(frozen=True)
class PictureFit:
    """Scale to `scaled`, then cut the centre `cropped` out; (width, height) in pixels."""

    given: tuple[int, int]
    scaled: tuple[int, int]
    cropped: tuple[int, int]

    @property
    def offset(self) -> tuple[int, int]:
        """Left and top edge of the cut."""
        (width, height), (kept_width, kept_height) = self.scaled, self.cropped
        return (width - kept_width) // 2, (height - kept_height) // 2

    def describe(self) -> Sentence:
        """One sentence about what was changed; empty when nothing was."""
        if self.given == self.cropped:
            return Sentence("")
        given, scaled, cropped = ("{}x{}".format(*size) for size in (self.given, self.scaled, self.cropped))
        if scaled == given:
            return say("The image of %1 was cut at its edges to %2, multiples of 16.", given, cropped)
        if cropped == scaled:
            return say("The image of %1 was scaled to %2.", given, scaled)
        return say(
            "The image of %1 was scaled to %2 and cut at its edges to %3, multiples of 16.",
            given, scaled, cropped,
        )  # fmt: skip


def fit_picture(width: int, height: int) -> PictureFit:
    """The smallest change that makes both sides multiples of 16 within 128 to 2048 pixels.

    A picture inside the range keeps its scale and loses at most 15 pixels a side, from the centre, as
    ComfyUI's VAE Encode does. Raises InputError for a shape that cannot fit (over 16 times as long as wide).
    """
    short, long = min(width, height), max(width, height)
    if short < 1 or long * MIN_SIZE > short * MAX_SIZE:
        raise InputError(
            say(
                "image is %1x%2: it is too narrow to fit between %3 and %4 pixels. "
                "Crop it to at most 16 times as long as wide.",
                width,
                height,
                MIN_SIZE,
                MAX_SIZE,
            )
        )
    scale = 1.0
    if long > MAX_SIZE:
        scale = MAX_SIZE / long
    elif short < MIN_SIZE:
        scale = MIN_SIZE / short

    def scaled(side: int) -> int:
        return min(MAX_SIZE, max(MIN_SIZE, round(side * scale)))

    across, down = scaled(width), scaled(height)
    return PictureFit((width, height), (across, down), (across // CELL * CELL, down // CELL * CELL))
