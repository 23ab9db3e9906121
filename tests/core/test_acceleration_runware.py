"""What Klein Acceleration's widgets become at Runware, judged by an emulator as strict as its document."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.acceleration.settings import make_acceleration
from kleinod_pure.base.fields import UNSET
from kleinod_pure.base.values import HIGHER_REUSES_MORE, LOWER_REUSES_MORE
from kleinod_pure.remote.services.runware import RunwareRequest

from tests.emulator.runware import ACCELERATOR, check

TASK = "00000000-0000-4000-8000-000000000000"
DIALS = {
    "fb_cache": ("fbCache", "fb_cache_threshold", "fbCacheThreshold"),
    "tea_cache": ("teaCache", "tea_cache_distance", "teaCacheDistance"),
    "db_cache": ("dbCache", "db_cache_threshold", "dbCacheThreshold"),
}
WINDOW = {
    "cache_start_step": "cacheStartStep",
    "cache_end_step": "cacheEndStep",
    "cache_start_step_percentage": "cacheStartStepPercentage",
    "cache_end_step_percentage": "cacheEndStepPercentage",
}


def task_of(**widgets: object) -> dict:
    request = RunwareRequest("a fox", accelerator=make_acceleration(**widgets).to_runware())
    return request.to_task() | {"taskUUID": TASK}


@given(
    method=st.sampled_from([None, *DIALS]),
    dial=st.integers(0, 100).map(lambda hundredths: hundredths / 100),
    meaning=st.sampled_from([LOWER_REUSES_MORE, HIGHER_REUSES_MORE]),
    level=st.sampled_from(["none", "low", "medium", "high"]),
    start=st.integers(UNSET, 27),
    end=st.integers(UNSET, 28).filter(bool),
    percent=st.booleans(),
    cap=st.integers(1, 5),
    interval=st.integers(1, 60),
)
@settings(max_examples=200, deadline=None)
def test_every_dial_arrives_under_its_own_name(
    method: str | None, dial: float, meaning: str, level: str, start: int, end: int, percent: bool, cap: int,
    interval: int,
) -> None:  # fmt: skip
    if UNSET < end <= start:
        return
    names = list(WINDOW)[2:] if percent else list(WINDOW)[:2]
    widgets: dict[str, object] = {
        "acceleration": level,
        "threshold_meaning": meaning,
        "cache_max_consecutive_steps": cap,
        "db_cache_skip_interval": interval,
        **dict.fromkeys(WINDOW, UNSET),
        **dict(zip(names, (start, end), strict=True)),
    }
    expected: dict[str, object] = {
        WINDOW[name]: value for name, value in zip(names, (start, end), strict=True) if value != UNSET
    }
    if method is not None:
        switch, widget, field = DIALS[method]
        widgets |= {method: True, widget: dial}
        mirrored = meaning == HIGHER_REUSES_MORE and method != "tea_cache"
        expected |= {switch: True, field: round(1 - dial, 2) if mirrored else dial}
    if method == "db_cache":
        expected["dbCacheSkipInterval"] = interval
    if expected or cap != 3:
        expected["cacheMaxConsecutiveSteps"] = cap
    task = task_of(**widgets)
    check(task)
    assert task["acceleration"] == level
    assert task.get("acceleratorOptions", {}) == pytest.approx(expected)


def test_all_twelve_names_can_be_sent() -> None:
    sent: set[str] = set()
    for method, (_, widget, _) in DIALS.items():
        for window in ({"cache_start_step": 2, "cache_end_step": 20},
                       {"cache_start_step_percentage": 10, "cache_end_step_percentage": 90}):  # fmt: skip
            task = task_of(**{method: True, widget: 0.4, **window})
            check(task)
            sent |= set(task["acceleratorOptions"])
    assert sent == set(ACCELERATOR) and len(sent) == 12


def test_what_exists_locally_only_is_never_sent() -> None:
    plain = task_of()
    local = {
        "speed": 2.0,
        "forecast_error_limit": 0.1,
        "front_blocks": 3,
        "back_blocks": 2,
        "tea_signal": "spectral",
        "guidance_interval": 2,
        "guidance_end_percentage": 80,
        "reference_cache": "refresh",
        "reference_interval": 3,
    }
    for name, value in local.items():
        assert task_of(**{name: value}) == plain, name
