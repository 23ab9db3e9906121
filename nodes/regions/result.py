"""What became of each region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from .geometry import Box
from .waves import AnyRegion

PAINTED = "painted"
NOT_A_NUMBER = "kept as it was (the painting came out as not-a-number)"


@dataclass(frozen=True)
class Painted(Generic[AnyRegion]):
    """What became of one region. sigma: the noise level it began with. fate: PAINTED, or why not. shift: how
    far its colours were moved, RGB in 1/255."""

    region: AnyRegion
    sigma: float = 0.0
    fate: str = PAINTED
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


def describe(painted: Painted[AnyRegion], noun: str, box: Box, many: bool, more: str = "") -> str:
    """One line. noun: what regions are called. box: of what was painted, in pixels of the picture. many: the
    run has several pictures. more: what else is known of it, said behind its place."""
    region = painted.region
    where = f"picture {region.picture + 1} " if many else ""
    x0, y0, x1, y1 = (round(edge) for edge in box)
    size = "{}x{} at {}x{}".format(region.crop.width, region.crop.height, *region.crop.target)
    text = (
        f"{where}{noun} {region.number}: {painted.fate}, {x1 - x0}x{y1 - y0} px at {x0},{y0}{more}, crop "
        f"{size} ({float(region.crop.scale):.2f}x), seed {region.seed}"
    )
    if painted.fate == PAINTED and any(abs(value) >= 0.5 for value in painted.shift):
        text += ", colours moved by {:+.0f} {:+.0f} {:+.0f}".format(*painted.shift)
    return text
