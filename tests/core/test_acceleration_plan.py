"""Windows in steps, budget masks, and the clock that finds a call's step."""

from __future__ import annotations

import itertools
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.acceleration import presets
from kleinod_pure.acceleration.clock import StepClock
from kleinod_pure.acceleration.plan import budget_mask, make_plan, resolve_window
from kleinod_pure.base.values import Acceleration, Calibration

from tests.core.exact_flow import native_sigmas


def longest_run(mask: tuple[bool, ...]) -> int:
    return max((len(list(group)) for skipped, group in groupby(mask) if skipped), default=0)


@pytest.mark.parametrize("steps", [20, 28, 50])
@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_a_level_is_a_speed_whatever_the_prompt(level: str, steps: int) -> None:
    plan = make_plan(Acceleration(level, cache_max_consecutive_steps=5), steps)
    computed = steps - sum(plan.reuse)
    assert computed == int(steps / presets.SPEEDS[level])
    assert not any(plan.reuse[: presets.HEAD]) and not any(plan.reuse[-presets.TAIL :])
    assert plan.notes == ()


@pytest.mark.parametrize("steps", range(1, presets.FEWEST_STEPS))
@pytest.mark.parametrize("method", [{}, {"fb_cache": True}, {"tea_cache": True}, {"db_cache": True}])
def test_short_runs_are_never_cached(steps: int, method: dict) -> None:
    plan = make_plan(Acceleration("high", **method), steps)
    assert plan.idle and not any(plan.reuse)
    assert "too few" in plan.notes[0]


@given(
    steps=st.integers(8, 60),
    speed=st.floats(1.05, 5),
    cap=st.integers(1, 5),
    start=st.integers(0, 40),
    length=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_masks_obey_window_cap_and_budget(
    steps: int, speed: float, cap: int, start: int, length: int
) -> None:
    if start >= steps:
        return
    end = min(steps, start + length)
    value = Acceleration(
        speed=speed, cache_max_consecutive_steps=cap, cache_start_step=start, cache_end_step=end
    )
    plan = make_plan(value, steps)
    assert len(plan.reuse) == steps
    assert longest_run(plan.reuse) <= cap
    assert all(max(start, 2) <= i < min(end, steps - 1) for i, skipped in enumerate(plan.reuse) if skipped)
    wanted = steps - int(steps / speed + 1e-9)
    assert sum(plan.reuse) <= wanted
    assert (sum(plan.reuse) < wanted) == bool(plan.notes)


@pytest.mark.parametrize(("steps", "computed", "cap"), [(9, 6, 2), (10, 6, 3), (11, 8, 1)])
def test_the_mask_is_the_best_there_is(steps: int, computed: int, cap: int) -> None:
    """Against every mask that there is, by the cost in its docstring."""
    window, profile = (2, steps - 1), (3.0, 1.0, 0.5, 2.0)

    def cost(mask: tuple[bool, ...]) -> float:
        total, run = 0.0, 0
        for i, skipped in enumerate(mask):
            run = run + 1 if skipped else 0
            total += profile[i * len(profile) // steps] * run * (run + 1) / 2
        return total

    fair = [
        mask
        for mask in itertools.product((False, True), repeat=steps)
        if sum(mask) == steps - computed
        and longest_run(mask) <= cap
        and not any(mask[: window[0]])
        and not any(mask[window[1] :])
    ]
    assert cost(budget_mask(steps, computed, window, cap, profile)) == min(cost(mask) for mask in fair)


def test_a_calibration_moves_the_mask() -> None:
    late = Calibration("late", profile=(9.0, 9.0, 0.1, 0.1))
    plain = make_plan(Acceleration("medium"), 28)
    fitted = make_plan(Acceleration("medium", calibration=late), 28)
    assert sum(plain.reuse) == sum(fitted.reuse)
    assert sum(fitted.reuse[14:]) > sum(plain.reuse[14:])


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({}, (8, 27)),
        ({"cache_start_step": 3}, (3, 27)),
        ({"cache_end_step": 28}, (8, 28)),
        ({"cache_start_step_percentage": 50}, (14, 27)),
        ({"cache_end_step_percentage": 100}, (8, 28)),
        ({"cache_start_step_percentage": 10, "cache_end_step_percentage": 11}, (2, 4)),
    ],
)
def test_windows_count_steps(settings: dict, window: tuple[int, int]) -> None:
    assert resolve_window(Acceleration(fb_cache=True, **settings), 28, (8, 27)) == window


def test_windows_that_do_not_fit_the_run() -> None:
    with pytest.raises(ValueError, match="cacheEndStep is 30.*28 steps"):
        make_plan(Acceleration(cache_end_step=30), 28)
    with pytest.raises(ValueError, match="cacheStartStep is 28.*28 steps"):
        make_plan(Acceleration(cache_start_step=28), 28)
    with pytest.raises(ValueError, match="nothing lies in between"):
        make_plan(Acceleration(cache_start_step=20, cache_end_step_percentage=50), 28)


def test_the_smaller_of_interval_and_cap_holds() -> None:
    assert make_plan(Acceleration(db_cache=True), 28).cap == 3
    assert make_plan(Acceleration(db_cache=True, db_cache_skip_interval=2), 28).cap == 2
    assert make_plan(Acceleration(fb_cache=True, cache_max_consecutive_steps=5), 28).cap == 5


# --- the clock


@given(st.integers(1, 50), st.floats(0.5, 3.3))
def test_every_sigma_of_a_schedule_has_its_step(steps: int, mu: float) -> None:
    sigmas = native_sigmas(steps, mu)
    clock = StepClock(sigmas)
    assert [clock.locate(sigma) for sigma in sigmas[:-1]] == list(range(steps))
    assert not clock.irregular


def test_a_shaved_first_sigma_is_still_the_first_step() -> None:
    assert StepClock(native_sigmas(28)).locate(0.9999) == 0


def test_repetitions_and_midpoints_are_noticed() -> None:
    sigmas = native_sigmas(10)
    repeated = StepClock(sigmas)
    assert [repeated.locate(sigmas[i]) for i in (0, 1, 1)] == [0, 1, None]
    assert repeated.irregular
    between = StepClock(sigmas)
    assert between.locate((sigmas[3] + sigmas[4]) / 2) is None
    assert between.irregular
