"""The Acceleration value: Runware's fields to the letter, conflicts as sentences, thresholds in both
directions.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.acceleration.policies.blocks import BlockCache
from kleinod_pure.acceleration.policies.dual_block import DualBlock
from kleinod_pure.acceleration.policies.first_block import FirstBlock
from kleinod_pure.acceleration.policies.registry import list_wanted
from kleinod_pure.acceleration.policies.tea import Tea
from kleinod_pure.base.values import HIGHER_REUSES_MORE, LOWER_REUSES_MORE, Acceleration

BLOCK_CACHES: dict[str, type[BlockCache]] = {"fb_cache": FirstBlock, "db_cache": DualBlock, "tea_cache": Tea}


def resolve(value: Acceleration) -> float:
    """The number its block cache compares with."""
    return next(cache for name, cache in BLOCK_CACHES.items() if getattr(value, name)).resolve(value)


# Name in the API, field, least, most (None = open), default: the twelve rows of the seed document.
TWELVE = (
    ("cacheEndStep", "cache_end_step", 1, None, None),
    ("cacheEndStepPercentage", "cache_end_step_percentage", 1, 100, None),
    ("cacheMaxConsecutiveSteps", "cache_max_consecutive_steps", 1, 5, 3),
    ("cacheStartStep", "cache_start_step", 0, None, None),
    ("cacheStartStepPercentage", "cache_start_step_percentage", 0, 99, None),
    ("fbCache", "fb_cache", None, None, False),
    ("fbCacheThreshold", "fb_cache_threshold", 0, 1, 0.25),
    ("teaCache", "tea_cache", None, None, False),
    ("teaCacheDistance", "tea_cache_distance", 0, 1, 0.5),
    ("dbCache", "db_cache", None, None, False),
    ("dbCacheThreshold", "db_cache_threshold", 0, 1, 0.25),
    ("dbCacheSkipInterval", "db_cache_skip_interval", 1, None, 5),
)


@pytest.mark.parametrize(("name", "field", "least", "most", "default"), TWELVE)
def test_ranges_and_defaults(name: str, field: str, least: float, most: float, default: object) -> None:
    assert getattr(Acceleration(), field) == default
    if least is None:
        return
    Acceleration(**{field: least})
    with pytest.raises(ValueError, match=name):
        Acceleration(**{field: least - 1})
    if most is not None:
        Acceleration(**{field: most})
        with pytest.raises(ValueError, match=name):
            Acceleration(**{field: most + 1})


def test_acceleration_levels() -> None:
    assert Acceleration().acceleration == "high"
    for level in ("none", "low", "medium", "high"):
        assert Acceleration(level).acceleration == level
    with pytest.raises(ValueError, match="acceleration is 'fast'.*none, low, medium, high"):
        Acceleration("fast")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fb_cache": True, "db_cache": True}, "fbCache + dbCache"),
        ({"fb_cache": True, "tea_cache": True, "db_cache": True}, "fbCache + teaCache + dbCache"),
        ({"cache_start_step": 3, "cache_start_step_percentage": 10}, "cacheStartStep is 3"),
        ({"cache_end_step": 3, "cache_end_step_percentage": 10}, "cacheEndStep is 3"),
        ({"cache_start_step": 9, "cache_end_step": 9}, "start must come before"),
        ({"cache_start_step_percentage": 50, "cache_end_step_percentage": 40}, "start must come before"),
        ({"fb_cache_threshold": float("nan")}, "fbCacheThreshold"),
        ({"speed": 0.5}, "speed"),
    ],
)
def test_conflicts_name_the_inputs(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Acceleration(**settings)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "forecast"),
        ({"acceleration": "none"}, "none"),
        ({"acceleration": "none", "speed": 2.0}, "forecast"),
        ({"acceleration": "none", "fb_cache": True}, "first_block"),
        ({"tea_cache": True}, "tea"),
        ({"db_cache": True}, "dual_block"),
    ],
)
def test_one_method_follows(settings: dict, method: str) -> None:
    assert Acceleration(**settings).method == method


def test_runware_request_holds_what_was_set() -> None:
    assert Acceleration("low").to_runware() == {"acceleration": "low"}
    assert Acceleration("none", fb_cache=True, cache_start_step=4, cache_end_step=20).to_runware() == {
        "acceleration": "none",
        "acceleratorOptions": {
            "fbCache": True,
            "fbCacheThreshold": 0.25,
            "cacheStartStep": 4,
            "cacheEndStep": 20,
            "cacheMaxConsecutiveSteps": 3,
        },
    }
    dual = Acceleration(db_cache=True, cache_start_step_percentage=10, cache_end_step_percentage=90)
    assert dual.to_runware()["acceleratorOptions"] == {
        "dbCache": True,
        "dbCacheThreshold": 0.25,
        "dbCacheSkipInterval": 5,
        "cacheStartStepPercentage": 10,
        "cacheEndStepPercentage": 90,
        "cacheMaxConsecutiveSteps": 3,
    }
    tea = Acceleration(tea_cache=True, tea_cache_distance=0.3)
    assert tea.to_runware()["acceleratorOptions"]["teaCacheDistance"] == 0.3


def test_thresholds_leave_in_the_direction_of_runwares_text() -> None:
    ours = Acceleration(fb_cache=True, fb_cache_threshold=0.9, threshold_meaning=HIGHER_REUSES_MORE)
    assert ours.to_runware()["acceleratorOptions"]["fbCacheThreshold"] == pytest.approx(0.1)


@given(st.floats(0.01, 0.98), st.floats(0.01, 0.98), st.sampled_from(["fb", "db"]))
def test_both_meanings_mirror_each_other(a: float, b: float, kind: str) -> None:
    def resolved(dial: float, meaning: str) -> float:
        settings = {f"{kind}_cache": True, f"{kind}_cache_threshold": dial, "threshold_meaning": meaning}
        return resolve(Acceleration(**settings))

    assert resolved(a, LOWER_REUSES_MORE) == pytest.approx(resolved(1 - a, HIGHER_REUSES_MORE))
    if abs(a - b) > 1e-6:
        assert (resolved(a, HIGHER_REUSES_MORE) < resolved(b, HIGHER_REUSES_MORE)) == (a < b)
        assert (resolved(a, LOWER_REUSES_MORE) > resolved(b, LOWER_REUSES_MORE)) == (a < b)


@pytest.mark.parametrize("meaning", [LOWER_REUSES_MORE, HIGHER_REUSES_MORE])
@pytest.mark.parametrize("kind", ["fb_cache", "db_cache"])
def test_threshold_0_is_off_in_both_meanings(kind: str, meaning: str) -> None:
    value = Acceleration(**{kind: True, f"{kind}_threshold": 0.0, "threshold_meaning": meaning})
    assert resolve(value) == 0
    assert not list_wanted(value)


def test_what_is_off() -> None:
    assert not list_wanted(None)
    assert not list_wanted(Acceleration("none"))
    assert not list_wanted(Acceleration(tea_cache=True, tea_cache_distance=0.0))
    assert not list_wanted(Acceleration(speed=1.0))
    assert list_wanted(Acceleration("low"))
    assert list_wanted(Acceleration("none", guidance_interval=2))
    assert list_wanted(Acceleration("none", guidance_end_percentage=80))
    assert list_wanted(Acceleration("none", reference_cache="refresh"))
