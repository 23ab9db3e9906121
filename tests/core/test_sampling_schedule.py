"""Sigmas: BFL's numbers, the shape every schedule must have, and what strength does to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kleinod_pure.base.noise import unshift_sigma
from kleinod_pure.sampling.schedule import (
    MU_AUTO,
    MU_CAPPED,
    MU_FIXED,
    MU_MODES,
    NOISE_LEVEL,
    RULES,
    SCHEDULE,
    STRENGTH_MODES,
    build_schedule,
    compute_mu,
    count_run_steps,
    native_sigmas,
    respace_sigmas,
    shift_time,
)

rules = st.sampled_from(RULES)
modes = st.sampled_from(STRENGTH_MODES)
mus = st.sampled_from(MU_MODES)
step_counts = st.integers(1, 50)
token_counts = st.integers(64, 16384)
strengths = st.integers(1, 100).map(lambda percent: percent / 100)


# Rounded values as black-forest-labs/flux2 prints them.
@pytest.mark.parametrize(
    ("tokens", "steps", "mu"),
    [
        (1024, 4, 2.03),
        (1024, 28, 1.86),
        (3072, 20, 2.10),
        (4096, 28, 2.15),
        (4096, 50, 2.02),
        (16384, 4, 3.23),
        (16384, 50, 3.23),
    ],
)
def test_auto_mu_is_the_empirical_fit(tokens: int, steps: int, mu: float) -> None:
    assert compute_mu(MU_AUTO, tokens, steps) == pytest.approx(mu, abs=0.005)


@given(token_counts, step_counts)
def test_mu_modes(tokens: int, steps: int) -> None:
    auto = compute_mu(MU_AUTO, tokens, steps)
    assert compute_mu(MU_FIXED, tokens, steps) == 2.02
    capped = compute_mu(MU_CAPPED, tokens, steps)
    assert capped == (auto if tokens <= 4096 else compute_mu(MU_AUTO, 4096, steps))


def test_mu_refuses_unknown_modes() -> None:
    with pytest.raises(ValueError, match="mu is 'high'.*auto"):
        compute_mu("high", 4096, 28)


@pytest.mark.parametrize(
    ("tokens", "steps", "sigmas"),
    [
        (4096, 4, [1, 0.967, 0.908, 0.767, 0]),
        (16384, 4, [1, 0.987, 0.962, 0.894, 0]),
        (4096, 28, [0.508, 0.398, 0.242, 0]),
        (16384, 28, [0.484, 0]),
    ],
)
def test_native_numbers(tokens: int, steps: int, sigmas: list[float]) -> None:
    made = build_schedule("native", steps, tokens).sigmas
    assert made[-len(sigmas) :].tolist() == pytest.approx(sigmas, abs=6e-4)


@given(rules, step_counts, token_counts, mus, strengths, modes)
def test_every_schedule_falls_strictly_to_zero(
    rule: str, steps: int, tokens: int, mu: str, strength: float, mode: str
) -> None:
    assume(count_run_steps(steps, strength, mode))
    made = build_schedule(rule, steps, tokens, mu, strength, mode)
    assert made.sigmas.dtype == torch.float32
    assert made.sigmas[0] <= 1
    assert made.sigmas[-1] == 0
    assert (made.sigmas.diff() < 0).all()
    assert made.steps == len(made.sigmas) - 1
    assert made.start == float(made.sigmas[0])
    if mode == NOISE_LEVEL:
        assert made.steps == steps
        assert made.start == pytest.approx(strength, rel=1e-5)
    else:
        assert made.steps == round(steps * strength)


@given(rules, step_counts, token_counts, modes, strengths, strengths)
def test_more_strength_never_starts_cleaner(
    rule: str, steps: int, tokens: int, mode: str, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assume(count_run_steps(steps, low, mode))
    starts = [build_schedule(rule, steps, tokens, MU_AUTO, value, mode).start for value in (low, high)]
    assert starts[0] <= starts[1] * (1 + 1e-6)


@given(rules, step_counts, token_counts, modes)
def test_full_strength_is_the_whole_schedule(rule: str, steps: int, tokens: int, mode: str) -> None:
    whole = build_schedule(rule, steps, tokens)
    assert torch.equal(
        build_schedule(rule, steps, tokens, strength=1.0, strength_mode=mode).sigmas, whole.sigmas
    )
    assert whole.start == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("steps", "strength"), [(1, 0.01), (4, 0.1), (28, 0.01), (1, 0.5)])
def test_a_share_of_less_than_half_a_step_runs_none(rule: str, steps: int, strength: float) -> None:
    """ComfyUI's SplitSigmasDenoise then returns an empty schedule."""
    assert count_run_steps(steps, strength, SCHEDULE) == 0
    with pytest.raises(ValueError, match="none to run"):
        build_schedule(rule, steps, 4096, strength=strength, strength_mode=SCHEDULE)
    assert count_run_steps(steps, strength, NOISE_LEVEL) == steps


def test_schedule_mode_starts_where_the_guide_says() -> None:
    """The same strength means 77% noise here and 30% there."""
    cut = build_schedule("native", 28, 4096, strength=0.3, strength_mode=SCHEDULE)
    level = build_schedule("native", 28, 4096, strength=0.3, strength_mode=NOISE_LEVEL)
    assert cut.start == pytest.approx(0.77, abs=0.005)
    assert level.start == pytest.approx(0.3)
    assert (cut.steps, level.steps) == (8, 28)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, math.nan])
def test_strengths_without_a_schedule(strength: float) -> None:
    with pytest.raises(ValueError, match="strength is"):
        build_schedule("native", 28, 4096, strength=strength)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="rule is 'normal'"):
        build_schedule("normal", 28, 4096)
    with pytest.raises(ValueError, match="strength_mode is 'denoise'"):
        build_schedule("native", 28, 4096, strength_mode="denoise")


@given(st.floats(0.01, 1), st.floats(0.1, 4))
def test_time_and_sigma_are_inverse(sigma: float, mu: float) -> None:
    time = torch.tensor(unshift_sigma(sigma, mu), dtype=torch.float64)
    assert float(shift_time(time, mu)) == pytest.approx(sigma, rel=1e-9)


@given(st.sampled_from(["karras", "exponential", "beta"]), st.integers(2, 50), token_counts, strengths)
def test_respaced_sigmas_keep_the_native_ends(rule: str, steps: int, tokens: int, strength: float) -> None:
    mu = compute_mu(MU_AUTO, tokens, steps)
    native = native_sigmas(steps, mu, strength)
    made = respace_sigmas(rule, native, mu)
    assert len(made) == len(native)
    assert made[[0, -2]].tolist() == pytest.approx(native[[0, -2]].tolist(), rel=1e-5)


def reference(rule: str, native: np.ndarray) -> np.ndarray:
    """The conversions as diffusers' FlowMatchEulerDiscreteScheduler writes them, in float64."""
    from scipy.stats import beta

    high, low, steps = native[0], native[-2], len(native) - 1
    if rule == "karras":
        ramp = np.linspace(0, 1, steps)
        made = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    elif rule == "exponential":
        made = np.exp(np.linspace(np.log(high), np.log(low), steps))
    else:
        made = low + beta.ppf(1 - np.linspace(0, 1, steps), 0.6, 0.6) * (high - low)
    return np.append(made, 0)


@pytest.mark.parametrize("rule", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("steps", [2, 4, 28, 50])
def test_respaced_sigmas_are_those_of_diffusers(rule: str, steps: int) -> None:
    native = build_schedule("native", steps, 4096).sigmas
    made = build_schedule(rule, steps, 4096).sigmas
    assert made.numpy() == pytest.approx(reference(rule, native.double().numpy()), abs=2e-6)


def test_the_rules_differ() -> None:
    made = [tuple(build_schedule(rule, 28, 4096).sigmas.tolist()) for rule in RULES]
    assert len(set(made)) == len(RULES)
