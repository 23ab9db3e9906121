"""Kleinod Fast on a flow that is known exactly: order, cost, and what it is worth against Euler."""

from __future__ import annotations

import pytest
import torch
from kleinod_pure.sampling.fast import FULL, MIN_STEPS, Multistep, repair_share, sample_fast
from kleinod_pure.sampling.schedule import fast_sigmas

from tests.core.exact_flow import MixtureFlow, decibels, integrate, native_sigmas

MU = 2.05


def solve(flow: MixtureFlow, x: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
    solver = Multistep(repair_share(len(sigmas) - 1))
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = solver.advance(x, sigma, following, flow.velocity(x, sigma))
    return x


@pytest.mark.parametrize("steps", [10, FULL[0]])
def test_half_the_calls_come_nearer_to_the_exact_picture_than_euler(steps: int) -> None:
    flow = MixtureFlow()
    exact = integrate(flow.velocity, flow.noise(), native_sigmas(2000))
    euler = integrate(flow.velocity, flow.noise(), native_sigmas(2 * steps))
    flow.calls = 0
    fast = solve(flow, flow.noise(), fast_sigmas(steps, MU).double().tolist())
    assert flow.calls == steps
    assert decibels(fast, exact) > decibels(euler, exact)


@pytest.mark.parametrize("steps", range(MIN_STEPS, 19))
def test_it_is_never_farther_than_plain_steps_from_the_true_path_nor_from_28_plain_steps(steps: int) -> None:
    """With every repair in full it goes past the 28 plain steps, and 18 are farther from them than 18 of
    Euler."""
    flow = MixtureFlow()
    fast = solve(flow, flow.noise(), fast_sigmas(steps, MU).double().tolist())
    plain = integrate(flow.velocity, flow.noise(), native_sigmas(steps))
    for wanted in (2000, 28):
        picture = integrate(flow.velocity, flow.noise(), native_sigmas(wanted))
        assert decibels(fast, picture) > decibels(plain, picture), wanted


def test_it_is_second_order() -> None:
    """On x' = -x over even steps twice the steps leave a quarter of the error."""

    def error(steps: int) -> float:
        solver, x = Multistep(), torch.ones(1, 1, dtype=torch.float64)
        sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = solver.advance(x, sigma, following, -x)
        return abs(float(x) - float(torch.tensor(1.0, dtype=torch.float64).exp()))

    assert 3.4 < error(40) / error(80) < 4.6


def test_a_straight_path_is_exact() -> None:
    sigmas = fast_sigmas(9, MU).double().tolist()
    solver, x, target = Multistep(), torch.ones(1, 4, dtype=torch.float64), torch.zeros(1, 4)
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = solver.advance(x, sigma, following, (x - target) / sigma)
    torch.testing.assert_close(x, target.double(), atol=1e-12, rtol=0)


def test_a_change_that_turns_round_repairs_nothing_and_one_that_goes_on_does() -> None:
    """Two pictures in one batch: the velocity of the first jitters, that of the second goes on changing; the
    first repair, which nothing comes before, is half of the trapezoid's."""
    sigmas = [0.9, 0.7, 0.5, 0.3, 0.1]
    velocities = torch.tensor([[1.0, 1.0], [2.0, 2.0], [1.0, 3.0], [2.0, 4.0]], dtype=torch.float64)
    solver, x = Multistep(), torch.zeros(2, 1, dtype=torch.float64)
    for i, velocity in enumerate(velocities):
        x = solver.advance(x, sigmas[i], sigmas[i + 1], velocity[:, None])
    euler = -0.2 * velocities.sum(0)
    first = -0.2 / 2 * 0.5 * 1.0
    wanted = euler + torch.tensor([first, first + 2 * -0.2 / 2 * 1.0], dtype=torch.float64)
    torch.testing.assert_close(x[:, 0], wanted)


@pytest.mark.parametrize("steps", [1, 2, 5, 14, 50])
@pytest.mark.parametrize("start", [1.0, 0.6])
def test_the_sigmas_fall_from_start_to_zero(steps: int, start: float) -> None:
    sigmas = fast_sigmas(steps, MU, start)
    assert len(sigmas) == steps + 1 and sigmas[0] == torch.tensor(start) and sigmas[-1] == 0
    assert (sigmas[1:] < sigmas[:-1]).all()


def test_the_last_steps_are_those_of_a_run_twice_as_long() -> None:
    torch.testing.assert_close(
        fast_sigmas(14, MU)[-3:].double(), torch.tensor(native_sigmas(28, MU)[-3:], dtype=torch.float64)
    )


def test_no_steps_are_an_error() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        fast_sigmas(0, MU)


def test_as_a_sampler_it_calls_the_model_once_a_step_and_tells_of_each() -> None:
    flow, told = MixtureFlow(dimensions=3), []

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = float(sigma[0])
        return x - level * flow.velocity(x.flatten(1).double(), level).reshape(x.shape).float()

    noise = flow.noise(2).float().reshape(2, 3, 1, 1)
    words: list[str] = []
    sampled = sample_fast(model, noise, fast_sigmas(14, MU), None, told.append, True, tell=words.append)
    assert flow.calls == 14 and [step["i"] for step in told] == list(range(14))
    by_hand = solve(flow, noise.flatten(1).double(), fast_sigmas(14, MU).double().tolist())
    torch.testing.assert_close(sampled.flatten(1).double(), by_hand, atol=1e-4, rtol=1e-4)
    assert not words
    few = fast_sigmas(9, MU)
    euler = noise.flatten(1).double()
    for sigma, following in zip(few.double().tolist()[:-1], few.double().tolist()[1:], strict=True):
        euler = euler + (following - sigma) * flow.velocity(euler, sigma)
    plain = sample_fast(model, noise, few, None, told.append, True, tell=words.append)
    torch.testing.assert_close(plain.flatten(1).double(), euler, atol=1e-4, rtol=1e-4)
    assert len(words) == 1 and "With 9 steps" in words[0]
