"""How regions are painted, whoever asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.fields import Field, check_fields
from ..base.flux2 import CELL
from ..sampling.schedule import (
    MU_AUTO,
    NOISE_LEVEL,
    STRENGTH_MODES,
    Schedule,
    build_schedule,
    count_run_steps,
)

STRENGTH_MODE = Field(
    "strength_mode",
    NOISE_LEVEL,
    "noise-level: strength is the share of noise a face starts with, and all steps run. schedule: strength "
    "is the share of the steps that run, as in other programs and at Runware; with FLUX.2 even 0.3 then "
    "starts with about 77% noise.",
    choices=STRENGTH_MODES,
    optional=True,
    advanced=True,
)
BATCH_LIMIT = Field(
    "batch_limit",
    4,
    "Faces painted at once. More is faster and needs more memory; where that runs out, fewer are tried. The "
    "result is the same.",
    low=1,
    high=64,
    optional=True,
    advanced=True,
)
SHOWN, HIDDEN, NO_CROP = "crop", "crop without the masked part", "none"
CROP_REFERENCE = Field(
    "crop_reference",
    SHOWN,
    "What image 1 of the prompt is. crop: the place as it is, so the prompt may speak of what stands there. "
    "crop without the masked part: only its surroundings, so that nothing of the old shows through. none: "
    "references begin with image 1.",
    choices=(SHOWN, HIDDEN, NO_CROP),
    optional=True,
    advanced=True,
)
FIELDS = (STRENGTH_MODE, BATCH_LIMIT, CROP_REFERENCE)


@dataclass(frozen=True)
class PaintRequest:
    """strength: 0..1, read by strength_mode (see `sampling/schedule.py`). guidance: 1 runs no negative pass.
    colour_match: 0 (off) to 1. batch_limit: regions painted at once. crop_reference: the first reference.
    """

    strength: float
    steps: int
    guidance: float
    colour_match: float = 1.0
    strength_mode: str = NOISE_LEVEL
    batch_limit: int = BATCH_LIMIT.default
    crop_reference: str = CROP_REFERENCE.default

    def __post_init__(self) -> None:
        check_fields(self, FIELDS)

    @property
    def steps_run(self) -> int:
        """Model calls for each region, guidance not counted; 0 where nothing is painted."""
        return count_run_steps(self.steps, self.strength, self.strength_mode)

    def schedule(self, target: tuple[int, int]) -> Schedule:
        """Sigmas for a crop painted at `target` (width, height); only where `steps_run` is not 0."""
        tokens = target[0] * target[1] // CELL**2
        return build_schedule("native", self.steps, tokens, MU_AUTO, self.strength, self.strength_mode)
