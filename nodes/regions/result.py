"""What became of each region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

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
