"""What an artist asks of one run of Klein Sampler, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from .schedule import MU_AUTO, MU_MODES, NOISE_LEVEL, STRENGTH_MODES, Schedule, build_schedule
from .schedulers import DEFAULT_SCHEDULER, Scheduler, find_scheduler

CELL = 16
"""Pixels of one latent cell's side."""
SIZE_MIN, SIZE_MAX = 128, 2048
STEPS_MIN, STEPS_MAX, STEPS_DEFAULT = 1, 50, 28
GUIDANCE_MIN, GUIDANCE_MAX, GUIDANCE_DEFAULT = 1.0, 20.0, 4.0
SEED_MAX = 2**32 - 1
RESULTS_MAX = 20
# People know 0.5 of Stable Diffusion as the middle between keeping and remaking a picture. Half way through
# its schedule noise makes 0.62 of the mixture, so as a noise level the middle lies here.
STRENGTH_DEFAULT = 0.6


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
    steps: int = STEPS_DEFAULT
    guidance: float = GUIDANCE_DEFAULT
    seed: int = 0
    scheduler: str = DEFAULT_SCHEDULER
    results: int = 1
    mu: str = MU_AUTO
    strength: float = STRENGTH_DEFAULT
    strength_mode: str = NOISE_LEVEL

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            _check_side(name, getattr(self, name))
        _check_range("steps", self.steps, STEPS_MIN, STEPS_MAX)
        _check_range("guidance", self.guidance, GUIDANCE_MIN, GUIDANCE_MAX)
        _check_range("seed", self.seed, 0, SEED_MAX)
        _check_range("results", self.results, 1, RESULTS_MAX)
        _check_range("strength", self.strength, 0.0, 1.0)
        _check_choice("mu", self.mu, MU_MODES)
        _check_choice("strength_mode", self.strength_mode, STRENGTH_MODES)
        find_scheduler(self.scheduler)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed a result; past the largest one they start again at 0."""
        return tuple((self.seed + i) % (SEED_MAX + 1) for i in range(self.results))

    @property
    def recipe(self) -> Scheduler:
        return find_scheduler(self.scheduler)

    @property
    def guided(self) -> bool:
        return self.guidance > 1.0

    def schedule(self, tokens: int, from_picture: bool) -> Schedule:
        """Sigmas for a picture of `tokens` latent cells; strength counts only when `from_picture`."""
        strength = self.strength if from_picture else 1.0
        return build_schedule(self.recipe.rule, self.steps, tokens, self.mu, strength, self.strength_mode)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also turns NaN away
        raise ValueError(f"{name} is {value}, but must lie between {low:g} and {high:.10g}.")


def _check_side(name: str, value: int) -> None:
    _check_range(name, value, SIZE_MIN, SIZE_MAX)
    if value % CELL:
        below = value // CELL * CELL
        raise ValueError(
            f"{name} is {value}, but must be a multiple of {CELL}: use {below} or {below + CELL}."
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of: {', '.join(choices)}.")
