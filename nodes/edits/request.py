"""What an artist asks of Klein Inpaint and Klein Outpaint, field by field."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.fields import Field, check_fields
from ..base.flux2 import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    MAX_GUIDANCE,
    MAX_RESULTS,
    MAX_SEED,
    MAX_STEPS,
    MIN_GUIDANCE,
    MIN_STEPS,
)
from ..base.values import MASK_PIXELS
from ..regions.prompt_lines import PromptLines
from ..regions.request import BATCH_LIMIT, CROP_REFERENCE, STRENGTH_MODE, PaintRequest
from .parts import AUTOMATIC, SPLITS

CROP, WHOLE = "crop", "whole picture"
AREAS = (CROP, WHOLE)
PERCENT = "percent of the region"
UNITS = (PERCENT, MASK_PIXELS)
MAX_UPSCALE = 4.0
"""A crop is never enlarged more, so that nothing is invented from a few pixels."""

SEED = Field(
    "seed",
    0,
    "Where the noise comes from. Every region of every picture gets a seed of its own from it.",
    low=0,
    high=MAX_SEED,
)
STEPS = Field(
    "steps", DEFAULT_STEPS, "Steps for a region. Base 20 to 50, distilled 4.", low=MIN_STEPS, high=MAX_STEPS
)
GUIDANCE = Field(
    "guidance",
    DEFAULT_GUIDANCE,
    "How strictly the prompt is followed. On Klein Base about 4, distilled 1, which runs without the "
    "negative prompt in half the time.",
    low=MIN_GUIDANCE,
    high=MAX_GUIDANCE,
    step=0.1,
)
STRENGTH = Field(
    "strength",
    1.0,
    "How much is painted anew. 1 paints from the prompt and the references alone; as a noise level 0.8 keeps "
    "colours and places, 0.6 the composition. 0 paints nothing.",
    low=0.0,
    high=1.0,
    step=0.01,
)
AREA = Field(
    "area",
    CROP,
    "crop: the region with its surroundings, enlarged to megapixels where it is smaller, for the most "
    "detail. whole picture: all of it, for prompts that speak of more than the region.",
    choices=AREAS,
)
CONTEXT = Field(
    "context",
    1.5,
    "Side of the crop, in sides of the region: how much around it the model sees. More of it leaves fewer "
    "pixels for the region.",
    low=1.0,
    high=8.0,
    step=0.05,
)
MEGAPIXELS = Field(
    "megapixels",
    1.0,
    "Size at which a crop is painted, in millions of pixels. A larger crop is made smaller for it and comes "
    "back softer than its surroundings; the info says so.",
    low=0.1,
    high=4.0,
    step=0.05,
)
GROW = Field(
    "grow",
    6,
    "How far beyond the mask anything may change, in edge_unit. Outside of it not a bit changes.",
    low=0,
    high=512,
)
FEATHER = Field(
    "feather",
    6,
    "Width of the transition from old to new, in edge_unit. It runs inwards from where grow ends, so that "
    "with equal numbers all of the mask is new.",
    low=0,
    high=512,
)
EDGE_UNIT = Field(
    "edge_unit",
    PERCENT,
    "What grow and feather count: percent of the region, so that large and small ones get alike, or pixels "
    "of the picture.",
    choices=UNITS,
)
COLOUR_MATCH = Field(
    "colour_match",
    1.0,
    "Takes back the tint that painting adds, as measured just outside of what changes. 0 is off.",
    low=0.0,
    high=1.0,
    step=0.05,
)
RESULTS = Field(
    "results",
    1,
    "How many versions to make, each from the next seed. They come one after another in the batch.",
    low=1,
    high=MAX_RESULTS,
)
REGIONS = Field(
    "regions",
    AUTOMATIC,
    "automatic: parts of the mask near each other are painted as one, unless region_prompts has several "
    "lines. apart: every connected part by itself. together: all as one.",
    choices=SPLITS,
    optional=True,
    advanced=True,
)
PAINT_FIELDS = (STRENGTH, STEPS, GUIDANCE, SEED, MEGAPIXELS, COLOUR_MATCH, RESULTS)
INPAINT_FIELDS = (AREA, CONTEXT, GROW, FEATHER, EDGE_UNIT, REGIONS)


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """What inpainting and outpainting share. prompt, negative: texts, blank where a conditioning counts.
    megapixels: of a crop as it is painted."""

    prompt: str = ""
    negative: str = ""
    seed: int = SEED.default
    steps: int = STEPS.default
    guidance: float = GUIDANCE.default
    strength: float = STRENGTH.default
    strength_mode: str = STRENGTH_MODE.default
    megapixels: float = MEGAPIXELS.default
    colour_match: float = COLOUR_MATCH.default
    results: int = RESULTS.default
    batch_limit: int = BATCH_LIMIT.default
    crop_reference: str = CROP_REFERENCE.default

    def __post_init__(self) -> None:
        check_fields(self, (*PAINT_FIELDS, STRENGTH_MODE, BATCH_LIMIT, CROP_REFERENCE))

    @property
    def painting(self) -> PaintRequest:
        return PaintRequest(
            self.strength,
            self.steps,
            self.guidance,
            self.colour_match,
            self.strength_mode,
            self.batch_limit,
            self.crop_reference,
        )

    @property
    def pixels(self) -> float:
        return self.megapixels * 1e6

    @property
    def seeds(self) -> tuple[int, ...]:
        """One a result; past the largest one they start again at 0."""
        return tuple((self.seed + number) % (MAX_SEED + 1) for number in range(self.results))


@dataclass(frozen=True, kw_only=True)
class InpaintRequest(EditRequest):
    """grow, feather: in edge_unit. context: in sides of the region."""

    area: str = AREA.default
    context: float = CONTEXT.default
    grow: int = GROW.default
    feather: int = FEATHER.default
    edge_unit: str = EDGE_UNIT.default
    regions: str = REGIONS.default
    prompts: PromptLines = PromptLines()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, INPAINT_FIELDS)
