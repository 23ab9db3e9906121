"""Values that travel on the wires between Kleinod's nodes.

Frozen dataclasses, validated when built, free of ComfyUI. The same value feeds a local node and its remote
twin, so each field keeps the API's name, range and default where one exists. Errors are sentences for
artists.

Conventions everywhere in the pack: IMAGE `[B, H, W, C]` float32 in 0..1, MASK `[B, H, W]`, LATENT samples
`[B, 128, H/16, W/16]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# --- Acceleration

ACCELERATION_LEVELS = ("none", "low", "medium", "high")
LOWER_REUSES_MORE = "lower reuses more (Runware text)"
HIGHER_REUSES_MORE = "higher reuses more (conventional)"
THRESHOLD_MEANINGS = (LOWER_REUSES_MORE, HIGHER_REUSES_MORE)
TEA_SIGNALS = ("coefficients", "spectral")
REFERENCE_CACHES = ("off", "refresh", "exact (9B-KV)")


def _require_range(name: str, value: float | None, low: float, high: float | None) -> None:
    if value is None:
        return
    if value != value or value < low or (high is not None and value > high):
        span = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} is {value}, but it must be {span}. Set a value in that range.")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is '{value}', but it must be one of: {', '.join(choices)}.")


@dataclass(frozen=True)
class Calibration:
    """What Klein Calibrate measured on one model: never leaves this machine.

    tea_coefficients: polynomial, highest power first, from the change of the first block's input to that of
    the velocity, seen up to tea_limit. profile: relative difficulty of skipping along the run, any number of
    equally wide bins, mean 1.
    """

    name: str
    tea_coefficients: tuple[float, ...] = ()
    tea_limit: float = 0.2
    profile: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(value != value or value <= 0 for value in self.profile):
            raise ValueError(
                f"The calibration '{self.name}' holds a profile with values that are not positive. "
                "Run Klein Calibrate again and save it under the same name."
            )


@dataclass(frozen=True)
class Acceleration:
    """Which work of the transformer may be skipped, when, and how boldly.

    The first thirteen fields are Runware's `acceleration` and `acceleratorOptions` with their names (in
    Python's spelling), ranges and defaults; None stands for "not set" where the API states no default. The
    rest is local. Exactly one method follows from them, see `method`. Thresholds of 0 always mean "never
    reuse".
    """

    acceleration: str = "high"
    cache_start_step: int | None = None
    cache_end_step: int | None = None
    cache_start_step_percentage: int | None = None
    cache_end_step_percentage: int | None = None
    cache_max_consecutive_steps: int = 3
    fb_cache: bool = False
    fb_cache_threshold: float = 0.25
    tea_cache: bool = False
    tea_cache_distance: float = 0.5
    db_cache: bool = False
    db_cache_threshold: float = 0.25
    db_cache_skip_interval: int = 5
    # Which way the thresholds of fbCache and dbCache point; teaCacheDistance is documented one way only.
    threshold_meaning: str = LOWER_REUSES_MORE
    # Forecast: the speed asked for (times faster), 0 = what `acceleration` stands for.
    speed: float = 0.0
    # Forecast: a relative error above this, seen at a computed step, makes the rest of the run more careful.
    forecast_error_limit: float = 0.5
    # dual block: blocks that always run, at the front (double blocks) and at the back (single blocks).
    front_blocks: int = 1
    back_blocks: int = 0
    tea_signal: str = "coefficients"
    # Guidance: both branches on every n-th computed step, in between the last difference; then none at all.
    guidance_interval: int = 1
    guidance_end_percentage: int = 100
    reference_cache: str = "off"
    reference_interval: int = 4
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        _require_choice("acceleration", self.acceleration, ACCELERATION_LEVELS)
        _require_choice("threshold_meaning", self.threshold_meaning, THRESHOLD_MEANINGS)
        _require_choice("tea_signal", self.tea_signal, TEA_SIGNALS)
        _require_choice("reference_cache", self.reference_cache, REFERENCE_CACHES)
        _require_range("cacheStartStep", self.cache_start_step, 0, None)
        _require_range("cacheEndStep", self.cache_end_step, 1, None)
        _require_range("cacheStartStepPercentage", self.cache_start_step_percentage, 0, 99)
        _require_range("cacheEndStepPercentage", self.cache_end_step_percentage, 1, 100)
        _require_range("cacheMaxConsecutiveSteps", self.cache_max_consecutive_steps, 1, 5)
        _require_range("fbCacheThreshold", self.fb_cache_threshold, 0, 1)
        _require_range("teaCacheDistance", self.tea_cache_distance, 0, 1)
        _require_range("dbCacheThreshold", self.db_cache_threshold, 0, 1)
        _require_range("dbCacheSkipInterval", self.db_cache_skip_interval, 1, None)
        if self.speed:
            _require_range("speed", self.speed, 1, 5)
        _require_range("forecast_error_limit", self.forecast_error_limit, 0, 10)
        _require_range("front_blocks", self.front_blocks, 1, 5)
        _require_range("back_blocks", self.back_blocks, 0, 19)
        _require_range("guidance_interval", self.guidance_interval, 1, 5)
        _require_range("guidance_end_percentage", self.guidance_end_percentage, 1, 100)
        _require_range("reference_interval", self.reference_interval, 1, 50)
        self._require_one_method()
        self._require_one_window()

    def _require_one_method(self) -> None:
        flags = {"fbCache": self.fb_cache, "teaCache": self.tea_cache, "dbCache": self.db_cache}
        on = [name for name, flag in flags.items() if flag]
        if len(on) > 1:
            raise ValueError(
                f"{' and '.join(on)} are switched on together, but they answer the same question "
                "differently. Switch on exactly one of fbCache, teaCache and dbCache, or none "
                "of them for the forecast."
            )

    def _require_one_window(self) -> None:
        pairs = (
            (
                "cacheStartStep",
                self.cache_start_step,
                "cacheStartStepPercentage",
                self.cache_start_step_percentage,
            ),
            ("cacheEndStep", self.cache_end_step, "cacheEndStepPercentage", self.cache_end_step_percentage),
        )
        for name, value, other, percentage in pairs:
            if value is not None and percentage is not None:
                raise ValueError(
                    f"{name} is {value} and {other} is {percentage}: both say the same thing. "
                    "Keep one, unset the other."
                )
        for start_name, start, end_name, end in (
            ("cacheStartStep", self.cache_start_step, "cacheEndStep", self.cache_end_step),
            (
                "cacheStartStepPercentage",
                self.cache_start_step_percentage,
                "cacheEndStepPercentage",
                self.cache_end_step_percentage,
            ),
        ):
            if start is not None and end is not None and start >= end:
                raise ValueError(
                    f"{start_name} is {start} and {end_name} is {end}, but the start must come "
                    "before the end."
                )

    @property
    def method(self) -> str:
        """none | forecast | first_block | tea | dual_block."""
        if self.fb_cache:
            return "first_block"
        if self.tea_cache:
            return "tea"
        if self.db_cache:
            return "dual_block"
        return "forecast" if self.speed > 1 or (not self.speed and self.acceleration != "none") else "none"

    def to_runware(self) -> dict[str, Any]:
        """`acceleration` and, where anything of it was set, `acceleratorOptions`, as the request spells them.

        Thresholds go out in the direction of Runware's own text. What only exists locally stays here.
        """

        def outward(value: float) -> float:
            return value if self.threshold_meaning == LOWER_REUSES_MORE else round(1 - value, 2)

        options: dict[str, Any] = {}
        if self.fb_cache:
            options |= {"fbCache": True, "fbCacheThreshold": outward(self.fb_cache_threshold)}
        if self.tea_cache:
            options |= {"teaCache": True, "teaCacheDistance": self.tea_cache_distance}
        if self.db_cache:
            options |= {
                "dbCache": True,
                "dbCacheThreshold": outward(self.db_cache_threshold),
                "dbCacheSkipInterval": self.db_cache_skip_interval,
            }
        window = {
            "cacheStartStep": self.cache_start_step,
            "cacheEndStep": self.cache_end_step,
            "cacheStartStepPercentage": self.cache_start_step_percentage,
            "cacheEndStepPercentage": self.cache_end_step_percentage,
        }
        options |= {name: value for name, value in window.items() if value is not None}
        if options or self.cache_max_consecutive_steps != 3:
            options["cacheMaxConsecutiveSteps"] = self.cache_max_consecutive_steps
        request: dict[str, Any] = {"acceleration": self.acceleration}
        if options:
            request["acceleratorOptions"] = options
        return request
