"""Windows in steps, budget masks, and the clock that finds a call's step."""

from __future__ import annotations

import itertools
import math
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.acceleration import presets
from kleinod_pure.acceleration.clock import StepClock
from kleinod_pure.acceleration.controller import Controller
from kleinod_pure.acceleration.plan import budget_mask, list_strides, resolve_window, step_weights
from kleinod_pure.acceleration.policies.dual_block import DualBlock
from kleinod_pure.acceleration.policies.first_block import FirstBlock
from kleinod_pure.acceleration.policies.forecast import make_plan, plan_usual_run
from kleinod_pure.acceleration.policies.policy import MIN_STEPS, ModelFacts, RunFacts
from kleinod_pure.base.noise import fit_mu, list_native_sigmas
from kleinod_pure.base.values import Acceleration
from kleinod_pure.sampling.schedule import build_schedule

from tests.core.exact_flow import native_sigmas


def longest_run(mask: tuple[bool, ...]) -> int:
    return max((len(list(group)) for skipped, group in groupby(mask) if skipped), default=0)


@pytest.mark.parametrize("steps", [20, 28, 50])
@pytest.mark.parametrize("level", ["low", "medium", "high", "highest"])
def test_a_level_is_a_speed_whatever_the_prompt(level: str, steps: int) -> None:
    plan = plan_usual_run(Acceleration(level), steps)
    computed = steps - sum(plan.reuse)
    assert computed == max(presets.min_computed(4.0, steps), int(steps / presets.SPEEDS[level]))
    assert not any(plan.reuse[: presets.HEAD]) and not any(plan.reuse[-presets.TAIL :])
    assert bool(plan.notes) == (computed > int(steps / presets.SPEEDS[level]))


@pytest.mark.parametrize("steps", range(1, MIN_STEPS))
@pytest.mark.parametrize("method", [{}, {"fb_cache": True}, {"tea_cache": True}, {"db_cache": True}])
def test_short_runs_are_never_cached(steps: int, method: dict) -> None:
    run = RunFacts(native_sigmas(steps), model=ModelFacts(5, 20))
    controller = Controller(Acceleration("high", **method), run)
    assert not controller.policies
    assert "too few" in controller.finish().notes[0]


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
    plan = plan_usual_run(value, steps)
    assert len(plan.reuse) == steps
    assert longest_run(plan.reuse) <= cap
    assert all(
        max(start, presets.HEAD) <= i < min(end, steps - 1) for i, skipped in enumerate(plan.reuse) if skipped
    )
    fewest = presets.min_computed(RunFacts((1.0, 0.0)).guidance, steps)
    wanted = max(0, steps - max(fewest, int(steps / speed + 1e-9)))
    assert sum(plan.reuse) <= wanted
    slower = sum(plan.reuse) < steps - int(steps / speed + 1e-9)
    assert slower == bool(plan.notes)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize(("steps", "computed", "cap"), [(9, 6, 2), (10, 6, 3), (11, 8, 1)])
def test_the_mask_is_the_best_there_is(steps: int, computed: int, cap: int, even: bool) -> None:
    """Against every mask that there is, by the cost in its docstring."""
    window = (2, steps - 1)
    weights = [(3.0, 1.0, 0.5, 2.0)[i * 4 // steps] for i in range(steps)]
    strides = [1.0] * steps if even else [(2.0, 0.5, 1.5)[i % 3] for i in range(steps)]

    def cost(mask: tuple[bool, ...]) -> float:
        total, run = 0.0, []
        for i, skipped in enumerate(mask):
            run = [*run, strides[i]] if skipped else []
            total += weights[i] * sum(run[k] * sum(run[: k + 1]) for k in range(len(run)))
        return total

    fair = [
        mask
        for mask in itertools.product((False, True), repeat=steps)
        if sum(mask) == steps - computed
        and longest_run(mask) <= cap
        and not any(mask[: window[0]])
        and not any(mask[window[1] :])
    ]
    chosen = budget_mask(computed, window, cap, weights, () if even else strides)
    assert cost(chosen) == pytest.approx(min(cost(mask) for mask in fair))


@pytest.mark.parametrize(
    ("speed", "pattern"),
    [(2.5, "CRRRCRRCRRCRRCRRCRRCRRCRCRCC"), (3.1, "CRRRRCRRRCRRRCRRRCRRCRRCRRCC")],
)
def test_the_masks_of_the_rule(speed: float, pattern: str) -> None:
    """At 28 steps and klein-nano's size, worked out apart from this code: plain recursion over the gaps of
    guide forecast.md 3.1, each step weighing its width to the power of .6.
    """
    sigmas = list_native_sigmas(28, 64)
    assert make_plan(Acceleration(speed=speed), RunFacts(sigmas, regular=True)).pattern == pattern


@given(st.lists(st.floats(0.001, 1), min_size=12, max_size=50), st.floats(1.3, 4))
@settings(max_examples=60, deadline=None)
def test_the_mask_follows_the_runs_own_sigmas(widths: list[float], speed: float) -> None:
    """A wide step is never skipped where skipping a narrower one in its place would do."""
    levels = [sum(widths[i:]) for i in range(len(widths) + 1)]
    plan = make_plan(Acceleration(speed=speed), RunFacts(tuple(levels), regular=True))
    weights = step_weights(levels)
    inner = range(presets.HEAD, len(widths) - presets.TAIL)
    alone = [i for i in inner if plan.reuse[i] and not plan.reuse[i - 1] and not plan.reuse[i + 1]]
    free = [i for i in inner if not any(plan.reuse[i - 1 : i + 2])]
    assert all(weights[i] <= weights[j] + 1e-9 for i in alone for j in free)


@pytest.mark.parametrize("tokens", [64, 4096])
@pytest.mark.parametrize("steps", [12, 20, 28, 50])
def test_flux2s_own_steps_lie_equally_far_apart(steps: int, tokens: int) -> None:
    """So their plans are those of a model whose time nobody knows."""
    sigmas, mu = list_native_sigmas(steps, tokens), fit_mu(tokens, steps)
    assert list_strides(sigmas, mu) == [1.0] * steps
    for level in ("low", "medium", "high", "highest"):
        known = make_plan(Acceleration(level), RunFacts(sigmas, regular=True, mu=mu))
        assert known.reuse == make_plan(Acceleration(level), RunFacts(sigmas, regular=True)).reuse


@pytest.mark.parametrize("tokens", [64, 4096])
@pytest.mark.parametrize("level", ["medium", "high", "highest"])
@pytest.mark.parametrize("rule", ["karras", "exponential", "beta"])
def test_no_skipped_step_is_far_in_flux2s_time(rule: str, level: str, tokens: int) -> None:
    """Counted in FLUX.2's own 28 steps none lies farther from what was computed before than the five that are
    skipped in a row at most, and after the first step, with no line to draw, than one and a half.
    """
    steps, mu = 28, fit_mu(tokens, 28)
    sigmas = tuple(build_schedule(rule, steps, tokens).sigmas.tolist())
    plan = make_plan(Acceleration(level), RunFacts(sigmas, regular=True, mu=mu))
    assert plan.computed == int(steps / presets.SPEEDS[level])
    own = [steps * sigma / (sigma + math.exp(mu) * (1 - sigma)) for sigma in sigmas[:-1]]
    last = 0
    for step, skipped in enumerate(plan.reuse):
        if skipped:
            assert own[last] - own[step] < (1.6 if last == 0 else presets.MAX_IN_A_ROW), (plan.pattern, step)
        else:
            last = step


def test_strides_are_known_of_falling_noise_between_1_and_0_only() -> None:
    for sigmas, mu in (((14.6, 3.0, 1.0, 0.0), 2.0), ((1.0, 0.5, 0.0, 0.0), 2.0), ((1.0, 0.5, 0.0), None)):
        assert list_strides(sigmas, mu) == [1.0] * (len(sigmas) - 1)
    assert list_strides((1.0, 0.0), 2.0) == [1.0]


def test_a_cap_of_the_user_wins() -> None:
    assert longest_run(plan_usual_run(Acceleration("highest"), 28).reuse) > 3
    for cap in (1, 2):
        plan = plan_usual_run(Acceleration("highest", cache_max_consecutive_steps=cap), 28)
        assert longest_run(plan.reuse) == cap and plan.notes
    # Sent to Runware together with another option, the API's own 3 is meant as it stands.
    windowed = plan_usual_run(Acceleration("highest", cache_start_step=1), 28)
    assert longest_run(windowed.reuse) == 3


def test_a_solver_nobody_knows_must_show_itself_first() -> None:
    sigmas = list_native_sigmas(28, 4096)
    careful = make_plan(Acceleration("high"), RunFacts(sigmas))
    known = make_plan(Acceleration("high"), RunFacts(sigmas, regular=True))
    assert careful.pattern.startswith("CCC") and known.pattern.startswith("CR")


def test_guidance_limits_the_speed_and_says_so() -> None:
    sigmas = list_native_sigmas(28, 4096)
    counts = []
    for guidance in (1.0, 4.0, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 20.0):
        plan = make_plan(Acceleration(speed=4.0), RunFacts(sigmas, regular=True, guidance=guidance))
        counts.append(plan.computed)
        limited = plan.computed > 7
        assert limited == bool(plan.notes)
        if limited:
            assert (
                f"at guidance {guidance:g}" in plan.notes[0] and f"{28 / plan.computed:.2f}x" in plan.notes[0]
            )
    assert counts == sorted(counts) and counts[:2] == [7, 9] and counts[5] == 16


@pytest.mark.parametrize(("steps", "computed"), [(12, 7), (16, 8), (18, 9), (20, 9), (28, 9), (50, 12)])
def test_no_run_plans_fewer_steps_than_hold(steps: int, computed: int) -> None:
    """Half of a short run's are enough; from guidance 5 on they are not."""
    plan = plan_usual_run(Acceleration(speed=4.0), steps)
    assert plan.computed == computed and bool(plan.notes) == (computed > steps // 4)
    assert plan_usual_run(Acceleration(speed=4.0), steps, 2.0).computed == max(7, steps // 4)
    assert plan_usual_run(Acceleration(speed=4.0), steps, 6.0).computed == min(steps, 14)


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
        plan_usual_run(Acceleration(cache_end_step=30), 28)
    with pytest.raises(ValueError, match="cacheStartStep is 28.*28 steps"):
        plan_usual_run(Acceleration(cache_start_step=28), 28)
    with pytest.raises(ValueError, match="nothing lies in between"):
        plan_usual_run(Acceleration(cache_start_step=20, cache_end_step_percentage=50), 28)


def test_the_smaller_of_interval_and_cap_holds() -> None:
    assert DualBlock.cap(Acceleration(db_cache=True)) == 3
    assert DualBlock.cap(Acceleration(db_cache=True, db_cache_skip_interval=2)) == 2
    assert FirstBlock.cap(Acceleration(fb_cache=True, cache_max_consecutive_steps=5)) == 5


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
