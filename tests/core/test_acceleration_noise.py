"""Solvers with one path of noise, on other models: fewer steps in the place of forecasts, and it says so."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.acceleration import presets
from kleinod_pure.acceleration.chart import draw_chart
from kleinod_pure.acceleration.plan import longest_drop, shorten_sigmas
from kleinod_pure.acceleration.policies.policy import MIN_STEPS, RunFacts
from kleinod_pure.acceleration.policies.registry import shorten_run
from kleinod_pure.acceleration.report import RunReport, StepRecord
from kleinod_pure.acceleration.settings import describe
from kleinod_pure.acceleration.solvers import calls_once_a_step, has_noise_path
from kleinod_pure.base.noise import list_native_sigmas
from kleinod_pure.base.values import Acceleration
from kleinod_pure.sampling.schedule import build_schedule

NATIVE = tuple(list_native_sigmas(28, 4096))
EVEN = [math.exp(-i / 14) for i in range(28)]
SIGMAS = (*EVEN, 0.0)
NOISY = RunFacts(SIGMAS, regular=True, noise_path=True)


@pytest.mark.parametrize(("level", "left"), [("low", 21), ("medium", 16), ("high", 11), ("highest", 9)])
def test_a_level_becomes_as_many_plain_steps(level: str, left: int) -> None:
    kept, run, words = shorten_run(Acceleration(level, guidance_interval=2), NOISY)
    assert run.steps == left and kept.method == "none"
    assert kept.guidance_interval == 2, "what else was asked for stays in force"
    assert f"{left} plain steps in the place of 28" in words
    assert f"{left} in the place of 28" in describe(Acceleration(level)), "said before the run, too"


@pytest.mark.parametrize(
    ("value", "run"),
    [
        (Acceleration("high"), RunFacts(SIGMAS, regular=True)),
        (Acceleration("high"), RunFacts(SIGMAS, noise_path=True)),
        (Acceleration("none"), NOISY),
        (Acceleration("high"), RunFacts(NATIVE, regular=True, noise_path=True)),
        (Acceleration("high", cache_start_step=2), NOISY),
        (Acceleration("high", cache_max_consecutive_steps=2), NOISY),
        (Acceleration("high", fb_cache=True), NOISY),
        (Acceleration("high"), RunFacts(SIGMAS[-MIN_STEPS:], regular=True, noise_path=True)),
        (Acceleration("high"), RunFacts(SIGMAS, regular=True, noise_path=True, mu=2.0)),
    ],
)
def test_every_other_run_keeps_its_steps(value: Acceleration, run: RunFacts) -> None:
    """Another solver, another method, FLUX.2's own long last steps, an option of the API's, a short run, and
    FLUX.2, on whose time the plan is good at such sigmas."""
    assert shorten_run(value, run) == (value, run, "")


@pytest.mark.parametrize("tokens", [64, 4096])
@pytest.mark.parametrize("steps", [7, 11, 16, 28, 40])
@pytest.mark.parametrize(
    ("rule", "short"),
    [("beta", True), ("exponential", True), ("karras", True), ("native", False), ("uniform", False)],
)
def test_which_schedules_have_short_steps_only(rule: str, short: bool, steps: int, tokens: int) -> None:
    sigmas = build_schedule(rule, steps, tokens).sigmas.tolist()
    assert (longest_drop(sigmas) <= presets.SHORT_DROP) == short


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=60), st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_a_shorter_schedule_keeps_its_ends_and_falls(widths: list[float], steps: int) -> None:
    sigmas = [sum(widths[i:]) for i in range(len(widths) + 1)]
    shorter = shorten_sigmas(sigmas, steps)
    assert len(shorter) == steps + 1
    assert shorter[0] == sigmas[0] and shorter[-1] == pytest.approx(sigmas[-1], abs=1e-12)
    assert all(a >= b for a, b in zip(shorter, shorter[1:], strict=False))


def test_a_shorter_schedule_of_a_divisor_is_every_nth_sigma() -> None:
    assert shorten_sigmas(NATIVE, 14) == pytest.approx(NATIVE[::2])


def sampler(name: str, **options: float) -> SimpleNamespace:
    return SimpleNamespace(sampler_function=SimpleNamespace(__name__=name), extra_options=options)


def test_a_solver_is_known_by_its_function_and_options() -> None:
    assert has_noise_path(sampler("sample_dpmpp_2m_sde", eta=0.5))
    assert not has_noise_path(sampler("sample_euler_ancestral")), "drawn anew in every step"
    for silent in ({"eta": 0.0}, {"s_noise": 0}):
        assert not has_noise_path(sampler("sample_dpmpp_2m_sde", **silent))
    assert not has_noise_path(sampler("sample_euler")) and not has_noise_path(object())
    assert calls_once_a_step(sampler("sample_lcm")) and not calls_once_a_step(sampler("sample_heun"))


def test_the_report_tells_what_was_asked_for() -> None:
    records = [StepRecord(i, 1 - i / 11) for i in range(11)]
    run = RunReport("fewer steps", 11, records, ["a reason"], asked=28)
    assert run.line() == "fewer steps: CCCCCCCCCCC  11 steps in the place of 28, about 2.55x faster; a reason"
    assert run.data()["asked"] == 28 and run.data()["steps"] == 11
    assert run.speed == pytest.approx(28 / 11)
    assert draw_chart([run]).tobytes() != draw_chart([RunReport("fewer steps", 11, records)]).tobytes()
    whole = RunReport("forecast", 11, records)
    assert whole.data()["asked"] == 11 and whole.speed == 1
