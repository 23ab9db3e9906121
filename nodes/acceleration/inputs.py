"""The widgets of Klein Acceleration: Runware's twelve options with their ranges and defaults, then ours.

Order is part of saved workflows: new inputs go to the end.
"""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..base.values import (
    ACCELERATION_LEVELS,
    LOWER_REUSES_MORE,
    REFERENCE_CACHES,
    TEA_SIGNALS,
    THRESHOLD_MEANINGS,
    Acceleration,
)
from .calibration_files import BUILT_IN, list_choices
from .settings import UNSET

_MOST_STEPS = 10000


def ask_level(default: str, tooltip: str) -> io.Input:
    return io.Combo.Input("acceleration", options=list(ACCELERATION_LEVELS), default=default, tooltip=tooltip)


def list_acceleration_inputs() -> list[io.Input]:
    """Every field of `Acceleration`, in the order of the sheet: speed, window, caches, ours."""
    return [
        ask_level(
            "high",
            "How much faster, for the forecast: low, medium and high are speeds, the same for every prompt "
            "(the info output shows them). Not used while fbCache, teaCache or dbCache is on, except at "
            "Runware, which always gets it.",
        ),
        *_list_window(),
        *_list_caches(),
        *_list_own(),
    ]


def _list_window() -> list[io.Input]:
    return [
        _step(
            "cache_start_step",
            _MOST_STEPS,
            "cacheStartStep: first step that may be reused, counted from 0. -1 is not set.",
        ),
        _step(
            "cache_end_step",
            _MOST_STEPS,
            "cacheEndStep: first step after the window, from 1 up to the number of steps. -1 is not set.",
        ),
        _step(
            "cache_start_step_percentage",
            99,
            "cacheStartStepPercentage: the same as a percentage of the steps, 0 to 99, which fits any "
            "number of them. -1 is not set. Use this or cache_start_step, not both.",
        ),
        _step(
            "cache_end_step_percentage",
            100,
            "cacheEndStepPercentage: 1 to 100. -1 is not set. Use this or cache_end_step, not both.",
        ),
        io.Int.Input(
            "cache_max_consecutive_steps",
            default=3,
            min=1,
            max=5,
            optional=True,
            tooltip="cacheMaxConsecutiveSteps: how many steps in a row may be reused at most.",
        ),
    ]


def _list_caches() -> list[io.Input]:
    return [
        _switch("fb_cache", "fbCache: reuse a step when the first block's output hardly changed."),
        _dial(
            "fb_cache_threshold",
            0.25,
            "fbCacheThreshold: how much change is too much. Which way it points says threshold_meaning; 0 "
            "never reuses. The info output shows the value it really stands for.",
        ),
        _switch("tea_cache", "teaCache: reuse until the input of the first block has changed enough."),
        _dial(
            "tea_cache_distance",
            0.5,
            "teaCacheDistance: lower is more exact, higher is faster; 0 never reuses.",
        ),
        _switch(
            "db_cache",
            "dbCache: as fbCache, with front_blocks and back_blocks always running, and what is reused "
            "carried on along its trend.",
        ),
        _dial(
            "db_cache_threshold",
            0.25,
            "dbCacheThreshold: as fb_cache_threshold, for dbCache.",
        ),
        io.Int.Input(
            "db_cache_skip_interval",
            default=5,
            min=1,
            max=_MOST_STEPS,
            optional=True,
            tooltip="dbCacheSkipInterval: after at most this many reused steps dbCache computes one. "
            "cache_max_consecutive_steps limits it, too: the smaller of both holds.",
        ),
    ]


def _list_own() -> list[io.Input]:
    return [
        io.Combo.Input(
            "threshold_meaning",
            options=list(THRESHOLD_MEANINGS),
            default=LOWER_REUSES_MORE,
            optional=True,
            tooltip="Which way the thresholds of fbCache and dbCache point. Runware's document says lower "
            "reuses more; every published cache means the opposite. Runware is always sent its own way.",
        ),
        io.Float.Input(
            "speed",
            default=0.0,
            min=0.0,
            max=5.0,
            step=0.05,
            round=0.01,
            optional=True,
            tooltip="Any speed for the forecast, from 1 to 5 times fewer computed steps, in place of "
            "low, medium or high. 0 takes acceleration.",
        ),
        io.Float.Input(
            "forecast_error_limit",
            default=Acceleration.forecast_error_limit,
            min=0.0,
            max=10.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="A forecast whose miss would have moved the picture by more than this share of itself "
            "(0.25 = 25%), seen at a computed step, makes the rest of the run more careful: half as many "
            "steps in a row.",
        ),
        _blocks("front_blocks", 1, 1, 5, "dbCache: blocks at the front that run on every step."),
        _blocks("back_blocks", 0, 0, 19, "dbCache: blocks at the back that run on every step."),
        io.Combo.Input(
            "tea_signal",
            options=list(TEA_SIGNALS),
            default=TEA_SIGNALS[0],
            optional=True,
            advanced=True,
            tooltip="teaCache: a curve fitted to Klein says what a change means (coefficients), or a filter "
            "that looks past the noise and needs none (spectral).",
        ),
        _blocks(
            "guidance_interval",
            1,
            1,
            5,
            "Compute the negative prompt on every n-th computed step only and reuse its effect in between: "
            "such a step costs half. 1 always computes it. Combines with everything above.",
            advanced=False,
        ),
        _blocks(
            "guidance_end_percentage",
            100,
            1,
            100,
            "Leave out the negative prompt, and with it the guidance, after this share of the steps.",
        ),
        io.Combo.Input(
            "reference_cache",
            options=list(REFERENCE_CACHES),
            default="off",
            optional=True,
            advanced=True,
            tooltip="Reference pictures: refresh computes them every few steps and remembers them in "
            "between, which changes the picture (experimental). exact suits FLUX.2 [klein] 9B-KV only.",
        ),
        _blocks("reference_interval", 4, 1, 50, "refresh: every n-th computed step sees them anew."),
        io.Combo.Input(
            "calibration",
            options=list_choices(),
            default=BUILT_IN,
            optional=True,
            advanced=True,
            tooltip="What Klein Calibrate saved about your own model: where skipping hurts least, and Tea's "
            "curve. built in fits FLUX.2 [klein] Base.",
        ),
    ]


def _step(name: str, most: int, tooltip: str) -> io.Input:
    return io.Int.Input(name, default=UNSET, min=UNSET, max=most, optional=True, tooltip=tooltip)


def _switch(name: str, tooltip: str) -> io.Input:
    return io.Boolean.Input(
        name, default=False, optional=True, tooltip=f"{tooltip} At most one of the three caches may be on."
    )


def _dial(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=default, min=0.0, max=1.0, step=0.01, round=0.01, optional=True, tooltip=tooltip
    )


def _blocks(name: str, default: int, least: int, most: int, tooltip: str, advanced: bool = True) -> io.Input:
    return io.Int.Input(
        name, default=default, min=least, max=most, optional=True, advanced=advanced, tooltip=tooltip
    )
