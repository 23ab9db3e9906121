"""What an artist asks of one run of Klein Sampler, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import InputError
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
from ..base.schedulers import DEFAULT_SCHEDULER, Scheduler, find_scheduler
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


@dataclass(frozen=True)
class SamplingRequest:
    """Settings of one run. Ranges and the defaults of steps, size and results are the API's.

    width, height: pixels, multiples of 16; ignored where a latent or an image is given. guidance: weight of
    `v_negative + guidance * (v_positive - v_negative)`, 1 runs no negative pass. seed: of the first result;
    every further one adds 1. strength: only for a given latent or image. Raises ValueError in an artist's
    words.
    """

    width: int = 1024
    height: int = 1024
    steps: int = DEFAULT_STEPS
    guidance: float = DEFAULT_GUIDANCE
    seed: int = 0
    scheduler: str = DEFAULT_SCHEDULER
    results: int = 1
    mu: str = MU_AUTO
    strength: float = DEFAULT_STRENGTH
    strength_mode: str = NOISE_LEVEL

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            _check_side(name, getattr(self, name))
        _check_range("steps", self.steps, MIN_STEPS, MAX_STEPS)
        _check_range("guidance", self.guidance, MIN_GUIDANCE, MAX_GUIDANCE)
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("results", self.results, 1, MAX_RESULTS)
        _check_range("strength", self.strength, 0.0, 1.0)
        _check_choice("mu", self.mu, MU_MODES)
        _check_choice("strength_mode", self.strength_mode, STRENGTH_MODES)
        find_scheduler(self.scheduler)

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


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also turns NaN away
        raise InputError(f"{name} is {value}, but must lie between {low:g} and {high:.10g}.")


def _check_side(name: str, value: int) -> None:
    _check_range(name, value, MIN_SIZE, MAX_SIZE)
    if value % CELL:
        below = value // CELL * CELL
        raise InputError(
            f"{name} is {value}, but must be a multiple of {CELL}: use {below} or {below + CELL}."
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}, but must be one of: {', '.join(choices)}.")
