"""What an artist asks of one run of Klein Sampler, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.fields import Field, check_fields
from ..base.flux2 import (
    CELL,
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    MAX_GUIDANCE,
    MAX_RESULTS,
    MAX_SEED,
    MAX_SIZE,
    MAX_STEPS,
    MIN_GUIDANCE,
    MIN_SIZE,
    MIN_STEPS,
)
from ..base.schedulers import DEFAULT_SCHEDULER, LOCAL_SCHEDULER_NAMES, Scheduler, find_scheduler
from .schedule import (
    MU_AUTO,
    MU_MODES,
    NOISE_LEVEL,
    STRENGTH_MODES,
    Schedule,
    build_schedule,
    count_run_steps,
)

# People know 0.5 of Stable Diffusion as the middle between keeping and remaking a picture. Half way through
# its schedule noise makes 0.62 of the mixture, so as a noise level the middle lies here.
DEFAULT_STRENGTH = 0.6


SAMPLING_FIELDS = (
    Field(
        "width",
        1024,
        "Width in pixels, a multiple of 16. Not used where a latent or an image is connected: its own size "
        "counts. klein-nano is made for 128.",
        low=MIN_SIZE,
        high=MAX_SIZE,
        multiple=CELL,
    ),
    Field(
        "height",
        1024,
        "Height in pixels, a multiple of 16. Not used where a latent or an image is connected: its own size "
        "counts. klein-nano is made for 128.",
        low=MIN_SIZE,
        high=MAX_SIZE,
        multiple=CELL,
    ),
    Field(
        "steps",
        DEFAULT_STEPS,
        "How often the picture is refined. Base models: 20 to 50. Distilled models: 4.",
        low=MIN_STEPS,
        high=MAX_STEPS,
    ),
    Field(
        "guidance",
        DEFAULT_GUIDANCE,
        "How strongly the picture follows the prompt and leaves the negative prompt. Base models: about 4. 1 "
        "runs without the negative prompt in half the time, which distilled models need.",
        low=MIN_GUIDANCE,
        high=MAX_GUIDANCE,
        step=0.1,
    ),
    Field(
        "seed",
        0,
        "Where the noise comes from: the same seed and settings give the same picture. Result 2 has this "
        "seed plus 1, and so on.",
        low=0,
        high=MAX_SEED,
    ),
    Field(
        "scheduler",
        DEFAULT_SCHEDULER,
        "How the steps are taken, by the names of Runware's API. Default (Euler on FLUX.2's own schedule) is "
        "what Klein is made for. The report says what runs for each name, and which names mean nothing for "
        "this kind of model. Kleinod Fast, the last of the list, is this pack's own: try 14 steps of it "
        "instead of 28. From guidance 5 on and with fewer than 10 steps it steps as Euler does.",
        choices=LOCAL_SCHEDULER_NAMES,
    ),
    Field(
        "results",
        1,
        "How many pictures to make, one after another, each with its own seed (see report). Stop hands on "
        "those that are done.",
        low=1,
        high=MAX_RESULTS,
    ),
    Field(
        "mu",
        MU_AUTO,
        "How long the steps stay with the composition before they turn to details. auto: Black Forest Labs' "
        "value for this size and number of steps. fixed 2.02: ComfyUI's value for its named schedulers. "
        "capped above 1 MP: auto, but large pictures keep the value of 1 megapixel; try it when they come "
        "out blurred or patterned.",
        choices=MU_MODES,
        optional=True,
        advanced=True,
    ),
    Field(
        "strength",
        DEFAULT_STRENGTH,
        "How much of a connected latent or image is remade: 0 returns it untouched, 0.3 changes textures, "
        "0.6 details, 0.8 most of it, 1 everything. Not used without one.",
        low=0,
        high=1,
        step=0.01,
        optional=True,
    ),
    Field(
        "strength_mode",
        NOISE_LEVEL,
        "noise-level: strength is the share of noise the start is mixed with, and all steps run. schedule: "
        "strength is the share of the steps that run, as with ComfyUI's Split Sigmas Denoise; FLUX.2's "
        "schedule then starts far noisier (0.3 means 77% noise at 1024x1024).",
        choices=STRENGTH_MODES,
        optional=True,
        advanced=True,
    ),
    Field(
        "image_guidance",
        1.0,
        "How strongly the picture follows its references, beside the prompt: above 1 more, below 1 less. 1 "
        "is the model as it is. Any other value also runs the prompt without its references in every step.",
        low=0,
        high=3,
        step=0.1,
        optional=True,
        advanced=True,
    ),
)
"""The rows of Klein Sampler's own widgets, in their order: check, widget and page read them."""
DEFAULTS = {field.name: field.default for field in SAMPLING_FIELDS}


@dataclass(frozen=True)
class SamplingRequest:
    """Settings of one run. Ranges and the defaults of steps, size and results are the API's.

    width, height: pixels, multiples of 16; ignored where a latent or an image is given. guidance: weight of
    `v_negative + guidance * (v_positive - v_negative)`, 1 runs no negative pass. seed: of the first result;
    every further one adds 1. strength: only for a given latent or image. image_guidance: weight of what the
    references change, 1 runs nothing more. Raises InputError in an artist's words.
    """

    width: int = DEFAULTS["width"]
    height: int = DEFAULTS["height"]
    steps: int = DEFAULTS["steps"]
    guidance: float = DEFAULTS["guidance"]
    seed: int = DEFAULTS["seed"]
    scheduler: str = DEFAULTS["scheduler"]
    results: int = DEFAULTS["results"]
    mu: str = DEFAULTS["mu"]
    strength: float = DEFAULTS["strength"]
    strength_mode: str = DEFAULTS["strength_mode"]
    image_guidance: float = DEFAULTS["image_guidance"]

    def __post_init__(self) -> None:
        # A name nobody knows gets the nearest known ones; the table would list all seventy.
        find_scheduler(self.scheduler)
        check_fields(self, SAMPLING_FIELDS)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed a result; past the largest one they start again at 0."""
        return tuple((self.seed + i) % (MAX_SEED + 1) for i in range(self.results))

    @property
    def recipe(self) -> Scheduler:
        return find_scheduler(self.scheduler)

    @property
    def guided(self) -> bool:
        return self.guidance > 1.0

    @property
    def steps_run(self) -> int:
        """Steps of a run that starts from a picture; 0 leaves it as it is."""
        return count_run_steps(self.steps, self.strength, self.strength_mode)

    def schedule(self, tokens: int, from_picture: bool) -> Schedule:
        """Sigmas for a picture of `tokens` latent cells; strength counts only when `from_picture`."""
        strength = self.strength if from_picture else 1.0
        return build_schedule(self.recipe.rule, self.steps, tokens, self.mu, strength, self.strength_mode)
