"""The dials of acceleration as one value: Runware's `acceleration` and `acceleratorOptions`, and ours.

Each dial is one row of `ACCELERATION_FIELDS`: from it come the check, the widget of Klein Acceleration, and
the request's spelling.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from .errors import InputError
from .fields import Field, check_fields
from .sentences import Sentence, join, say

API_LEVELS = ("none", "low", "medium", "high")
HIGHEST = "highest"
"""Beyond what the API has a word for; there it is high."""
ACCELERATION_LEVELS = (*API_LEVELS, HIGHEST)
LOWER_REUSES_MORE = "lower reuses more (Runware text)"
HIGHER_REUSES_MORE = "higher reuses more (conventional)"
THRESHOLD_MEANINGS = (LOWER_REUSES_MORE, HIGHER_REUSES_MORE)
TEA_SIGNALS = ("coefficients", "spectral")
REFERENCE_CACHES = ("off", "refresh", "exact (9B-KV)")

MAX_WIDGET_STEPS = 10000
"""The API names no limit; a widget needs one."""
ONE_CACHE = "At most one of the three caches may be on."

ACCELERATION_FIELDS = (
    Field(
        "acceleration",
        "high",
        "How much faster, for the forecast: low, medium, high and highest are speeds (the info output shows "
        "them). Strong guidance and pictures that are hard to foresee lower them. highest is ours: Runware "
        "is sent high. Not used while fbCache, teaCache or dbCache is on, except at Runware, which always "
        "gets it.",
        choices=ACCELERATION_LEVELS,
    ),
    Field(
        "cache_start_step",
        None,
        "cacheStartStep: first step that may be reused, counted from 0. -1 is not set.",
        kind=int,
        api="cacheStartStep",
        low=0,
        widget_high=MAX_WIDGET_STEPS,
        optional=True,
    ),
    Field(
        "cache_end_step",
        None,
        "cacheEndStep: first step after the window, from 1 up to the number of steps. -1 is not set.",
        kind=int,
        api="cacheEndStep",
        low=1,
        widget_high=MAX_WIDGET_STEPS,
        optional=True,
    ),
    Field(
        "cache_start_step_percentage",
        None,
        "cacheStartStepPercentage: the same as a percentage of the steps, 0 to 99, which fits any number of "
        "them. -1 is not set. Use this or cache_start_step, not both.",
        kind=int,
        api="cacheStartStepPercentage",
        low=0,
        high=99,
        optional=True,
    ),
    Field(
        "cache_end_step_percentage",
        None,
        "cacheEndStepPercentage: 1 to 100. -1 is not set. Use this or cache_end_step, not both.",
        kind=int,
        api="cacheEndStepPercentage",
        low=1,
        high=100,
        optional=True,
    ),
    Field(
        "cache_max_consecutive_steps",
        3,
        "cacheMaxConsecutiveSteps: how many steps in a row may be reused at most. 3 counts as not set for "
        "the forecast, which then takes up to 5, unless another of the API's options is set.",
        api="cacheMaxConsecutiveSteps",
        low=1,
        high=5,
        optional=True,
    ),
    Field(
        "fb_cache",
        False,
        "fbCache: reuse a step when the first block's output hardly changed. " + ONE_CACHE,
        api="fbCache",
        optional=True,
    ),
    Field(
        "fb_cache_threshold",
        0.25,
        "fbCacheThreshold: how much change is too much. Which way it points says threshold_meaning; 0 never "
        "reuses. The info output shows the value it really stands for.",
        api="fbCacheThreshold",
        low=0,
        high=1,
        step=0.01,
        decimals=0.01,
        optional=True,
    ),
    Field(
        "tea_cache",
        False,
        "teaCache: reuse until the input of the first block has changed enough. " + ONE_CACHE,
        api="teaCache",
        optional=True,
    ),
    Field(
        "tea_cache_distance",
        0.5,
        "teaCacheDistance: lower is more exact, higher is faster; 0 never reuses.",
        api="teaCacheDistance",
        low=0,
        high=1,
        step=0.01,
        decimals=0.01,
        optional=True,
    ),
    Field(
        "db_cache",
        False,
        "dbCache: as fbCache, with front_blocks and back_blocks always running, and what is reused carried "
        "on along its trend. " + ONE_CACHE,
        api="dbCache",
        optional=True,
    ),
    Field(
        "db_cache_threshold",
        0.25,
        "dbCacheThreshold: as fb_cache_threshold, for dbCache.",
        api="dbCacheThreshold",
        low=0,
        high=1,
        step=0.01,
        decimals=0.01,
        optional=True,
    ),
    Field(
        "db_cache_skip_interval",
        5,
        "dbCacheSkipInterval: after at most this many reused steps dbCache computes one. "
        "cache_max_consecutive_steps limits it, too: the smaller of both holds.",
        api="dbCacheSkipInterval",
        low=1,
        widget_high=MAX_WIDGET_STEPS,
        optional=True,
    ),
    Field(
        "threshold_meaning",
        LOWER_REUSES_MORE,
        "Which way the thresholds of fbCache and dbCache point. Runware's document says lower reuses more; "
        "every published cache means the opposite. Runware is always sent its own way.",
        choices=THRESHOLD_MEANINGS,
        optional=True,
    ),
    Field(
        "speed",
        0.0,
        "Any speed for the forecast, from 1 to 5 times fewer computed steps, in place of low, medium or "
        "high. 0 takes acceleration.",
        low=0,
        high=5,
        step=0.05,
        decimals=0.01,
        optional=True,
    ),
    Field(
        "forecast_error_limit",
        0.25,
        "Forecast: a gap of reused steps that would move the picture off by more than this share of itself "
        "(0.25 = 25%), going by what the gaps before it did, is not taken; its steps are computed. So it "
        "holds with 11 computed steps at half the noise; before that, where little of the picture is there "
        "yet, and with more steps it is less.",
        low=0,
        high=10,
        step=0.01,
        optional=True,
        advanced=True,
    ),
    Field(
        "front_blocks",
        1,
        "dbCache: blocks at the front that run on every step.",
        low=1,
        high=5,
        optional=True,
        advanced=True,
    ),
    Field(
        "back_blocks",
        0,
        "dbCache: blocks at the back that run on every step.",
        low=0,
        high=19,
        optional=True,
        advanced=True,
    ),
    Field(
        "tea_signal",
        TEA_SIGNALS[0],
        "teaCache: a curve fitted to Klein says what a change means (coefficients), or a filter that looks "
        "past the noise and needs none (spectral).",
        choices=TEA_SIGNALS,
        optional=True,
        advanced=True,
    ),
    Field(
        "guidance_interval",
        1,
        "Compute the negative prompt on every n-th computed step only and reuse its effect in between: such "
        "a step costs half. 1 always computes it. Reusing whole steps keeps more of the picture for the same "
        "work.",
        low=1,
        high=5,
        optional=True,
        advanced=True,
    ),
    Field(
        "guidance_end_percentage",
        100,
        "Leave out the negative prompt, and with it the guidance, after this share of the steps.",
        low=1,
        high=100,
        optional=True,
        advanced=True,
    ),
    Field(
        "reference_cache",
        REFERENCE_CACHES[0],
        "Reference pictures: refresh computes them every few steps and remembers them in between, which "
        "changes the picture (experimental). exact suits FLUX.2 [klein] 9B-KV only.",
        choices=REFERENCE_CACHES,
        optional=True,
        advanced=True,
    ),
    Field(
        "reference_interval",
        4,
        "refresh: every n-th computed step sees them anew.",
        low=1,
        high=50,
        optional=True,
        advanced=True,
    ),
)

CAP = "cache_max_consecutive_steps"
WINDOW = (
    "cache_start_step",
    "cache_end_step",
    "cache_start_step_percentage",
    "cache_end_step_percentage",
)
CACHES = {
    "fb_cache": ("fb_cache_threshold",),
    "tea_cache": ("tea_cache_distance",),
    "db_cache": ("db_cache_threshold", "db_cache_skip_interval"),
}
"""Each switch with its dials; at most one is on."""
MIRRORED = ("fb_cache_threshold", "db_cache_threshold")
"""Dials that threshold_meaning turns round."""

_DEFAULT = {field.name: field.default for field in ACCELERATION_FIELDS}
_API = {field.name: field.api for field in ACCELERATION_FIELDS}


SKIPPED, FAST = "skipped steps", "Kleinod Fast"
"""What a fitted table is for: steps of a run that are computed, or the steps of Kleinod Fast."""
LEAST_GAIN = 0.3
"""Decibels in the mean of a table worth having."""


@dataclass(frozen=True)
class FittedTable:
    """What Klein Calibrate fitted for runs of one kind on one model.

    model: its fingerprint. sigmas: of the run it stands for, `steps + 1`. computed: steps of it at which the
    model is called. levels: sigmas of these calls and a final 0; of skipped steps they are the run's own.
    weights: a call's, a row each frequency band: the mean velocity up to the next call is this sum over what
    leads there without a fit and the velocities of the newest calls, the newest first. errors: how far the
    end of a run lies from the true one, as a share of it, each of a prompt that the weights it ran with were
    not fitted to; rule_errors: the same prompts without the table. learned_from: how many of the user's own
    plain runs chose the steps, 0 for Klein Calibrate; such steps are bridged by the rule, without weights.
    """

    kind: str
    model: str
    guidance: float
    sigmas: tuple[float, ...]
    computed: tuple[int, ...]
    levels: tuple[float, ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    errors: tuple[float, ...]
    rule_errors: tuple[float, ...]
    learned_from: int = 0

    def __post_init__(self) -> None:
        calls = len(self.computed)
        whole = self.kind in (SKIPPED, FAST) and calls > 0 and len(self.levels) == calls + 1
        whole = whole and len(self.weights) == calls and tuple(sorted(set(self.computed))) == self.computed
        whole = whole and 0 < len(self.errors) == len(self.rule_errors)
        whole = whole and len(self.sigmas) > 1 and 0 <= self.computed[0] and self.computed[-1] < self.steps
        rows = [row for bands in self.weights for row in bands]
        whole = whole and all(self.weights) and all(0 < len(row) <= calls + 1 for row in rows)
        values = [self.guidance, *self.errors, *self.rule_errors, *self.sigmas, *self.levels, *sum(rows, ())]
        falling = all(a > b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if not (whole and falling and all(math.isfinite(value) for value in values)):
            raise InputError(say("one of its tables does not hold together"))

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def calls(self) -> int:
        return len(self.computed)

    @property
    def gain(self) -> float:
        """Decibels nearer to the true runs than without it, in the mean of all prompts."""
        tiny = 1e-6
        ratios = [
            (rule + tiny) / (error + tiny) for error, rule in zip(self.errors, self.rule_errors, strict=True)
        ]
        return statistics.fmean(20 * math.log10(ratio) for ratio in ratios)

    @property
    def wins(self) -> bool:
        """Nearer in the mean, and the worst prompt no worse."""
        return self.gain > LEAST_GAIN and max(self.errors) <= max(self.rule_errors)

    def describe(self) -> Sentence:
        """ "28 steps, guidance 4"."""
        if self.kind == SKIPPED:
            count = say("%1 steps", self.steps)
        else:
            count = say("%1 steps of Kleinod Fast", self.calls)
        return join(", ", [count, say("guidance %1", f"{self.guidance:g}")])


@dataclass(frozen=True)
class Calibration:
    """What Klein Calibrate measured on one model: never leaves this machine.

    tea_coefficients: polynomial, highest power first, from the change of the first block's input to that of
    the velocity, seen up to tea_limit. tables: fitted masks and weights; none in calibrations made before
    there were any.
    """

    name: str
    tea_coefficients: tuple[float, ...] = ()
    tea_limit: float = 0.2
    tables: tuple[FittedTable, ...] = ()


@dataclass(frozen=True)
class Acceleration:
    """Which work of the transformer may be skipped, when, and how boldly.

    The first thirteen fields are Runware's `acceleration` and `acceleratorOptions` with their names (in
    Python's spelling), ranges and defaults; None stands for "not set" where the API states no default. The
    rest is local. Exactly one method follows from them, see `method`. Thresholds of 0 always mean "never
    reuse". options: (name, value) of cache policies that brought dials of their own.
    """

    acceleration: str = _DEFAULT["acceleration"]
    cache_start_step: int | None = _DEFAULT["cache_start_step"]
    cache_end_step: int | None = _DEFAULT["cache_end_step"]
    cache_start_step_percentage: int | None = _DEFAULT["cache_start_step_percentage"]
    cache_end_step_percentage: int | None = _DEFAULT["cache_end_step_percentage"]
    cache_max_consecutive_steps: int = _DEFAULT["cache_max_consecutive_steps"]
    fb_cache: bool = _DEFAULT["fb_cache"]
    fb_cache_threshold: float = _DEFAULT["fb_cache_threshold"]
    tea_cache: bool = _DEFAULT["tea_cache"]
    tea_cache_distance: float = _DEFAULT["tea_cache_distance"]
    db_cache: bool = _DEFAULT["db_cache"]
    db_cache_threshold: float = _DEFAULT["db_cache_threshold"]
    db_cache_skip_interval: int = _DEFAULT["db_cache_skip_interval"]
    # Which way the thresholds of fbCache and dbCache point; teaCacheDistance is documented one way only.
    threshold_meaning: str = _DEFAULT["threshold_meaning"]
    # Forecast: the speed asked for (times faster), 0 = what `acceleration` stands for.
    speed: float = _DEFAULT["speed"]
    # Forecast: a gap that would move the picture by more than this share of itself is not taken.
    forecast_error_limit: float = _DEFAULT["forecast_error_limit"]
    # dual block: blocks that always run, at the front (double blocks) and at the back (single blocks).
    front_blocks: int = _DEFAULT["front_blocks"]
    back_blocks: int = _DEFAULT["back_blocks"]
    tea_signal: str = _DEFAULT["tea_signal"]
    # Guidance: both branches on every n-th computed step, in between the last difference; then none at all.
    guidance_interval: int = _DEFAULT["guidance_interval"]
    guidance_end_percentage: int = _DEFAULT["guidance_end_percentage"]
    reference_cache: str = _DEFAULT["reference_cache"]
    reference_interval: int = _DEFAULT["reference_interval"]
    calibration: Calibration | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, ACCELERATION_FIELDS)
        if 0 < self.speed < 1:
            raise InputError(
                say("speed is %1, but must be from 1 to 5, or 0 for what acceleration says.", self.speed)
            )
        self._require_one_method()
        self._require_one_window()

    def _require_one_method(self) -> None:
        on = [_API[cache] for cache in CACHES if getattr(self, cache)]
        if len(on) > 1:
            raise InputError(
                say(
                    "%1 are switched on together, but they answer the same question differently. "
                    "Switch on exactly one of fbCache, teaCache and dbCache, "
                    "or none of them for the forecast.",
                    " + ".join(on),
                )
            )

    def _require_one_window(self) -> None:
        start, end, start_share, end_share = WINDOW
        for name, other in ((start, start_share), (end, end_share)):
            value, percentage = getattr(self, name), getattr(self, other)
            if value is not None and percentage is not None:
                raise InputError(
                    say(
                        "%1 is %2 and %3 is %4: both say the same thing. Keep one, unset the other.",
                        _API[name],
                        value,
                        _API[other],
                        percentage,
                    )
                )
        for first, last in ((start, end), (start_share, end_share)):
            begin, stop = getattr(self, first), getattr(self, last)
            if begin is not None and stop is not None and begin >= stop:
                raise InputError(
                    say(
                        "%1 is %2 and %3 is %4, but the start must come before the end.",
                        _API[first],
                        begin,
                        _API[last],
                        stop,
                    )
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

    @property
    def options_are_set(self) -> bool:
        """Whether anything of acceleratorOptions was set, so that Runware is sent them."""
        return bool(self._set_options()) or self.cache_max_consecutive_steps != _DEFAULT[CAP]

    def option(self, name: str, default: Any) -> Any:
        """The dial of a policy that brought its own."""
        return dict(self.options).get(name, default)

    def to_runware(self) -> dict[str, Any]:
        """`acceleration` and, where anything of it was set, `acceleratorOptions`, as the request spells them.

        Thresholds go out in the direction of Runware's own text. What only exists locally stays here.
        """
        level = API_LEVELS[-1] if self.acceleration == HIGHEST else self.acceleration
        request: dict[str, Any] = {"acceleration": level}
        if self.options_are_set:
            options = self._set_options()
            options[_API[CAP]] = self.cache_max_consecutive_steps
            request["acceleratorOptions"] = options
        return request

    def _set_options(self) -> dict[str, Any]:
        names = [name for cache, dials in CACHES.items() if getattr(self, cache) for name in (cache, *dials)]
        names += [name for name in WINDOW if getattr(self, name) is not None]
        return {_API[name]: self._outward(name) for name in names}

    def _outward(self, name: str) -> Any:
        value = getattr(self, name)
        mirrored = name in MIRRORED and self.threshold_meaning == HIGHER_REUSES_MORE
        return round(1 - value, 2) if mirrored else value
