"""The forecast on flows that are known exactly: what it may promise, and that its error figure is true."""

from __future__ import annotations

import pytest
import torch
from kleinod_pure.acceleration.controller import Controller, Facts
from kleinod_pure.acceleration.forecast import Line, VelocityForecast, interpolate
from kleinod_pure.base.values import Acceleration

from tests.core.exact_flow import MixtureFlow, decibels, integrate, native_sigmas


def run(flow: MixtureFlow, value: Acceleration, steps: int, x: torch.Tensor, **facts: object):
    """Euler's method under a Controller, the way the patch drives it. Returns the result and the report."""
    sigmas = native_sigmas(steps)
    controller = Controller(value, Facts(sigmas, **{"euler": True, **facts}))
    x = x.clone()
    for i, sigma in enumerate(sigmas[:-1]):
        if controller.begin(controller.read_sigma(torch.tensor([sigma])), "same"):
            denoised = controller.forecast(x)
        else:
            denoised = controller.learn(x, x - sigma * flow.velocity(x, sigma))
        x = x + (sigmas[i + 1] - sigma) * (x - denoised) / sigma
    return x, controller.finish()


def relaxed(level: str = "medium", **settings: object) -> Acceleration:
    return Acceleration(level, forecast_error_limit=10.0, **settings)


def test_a_line_continues_a_line() -> None:
    start, slope = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    line = Line()
    assert line.add(1.0, start + slope) is None
    line.add(0.8, start + 0.8 * slope)
    torch.testing.assert_close(line.at(0.5), start + 0.5 * slope)
    assert line.add(0.5, start + 0.5 * slope).max() < 1e-5


def test_the_gain_follows_the_record_and_stays_in_bounds() -> None:
    """Where the truth moved half as far as the line said, half the slope is used next time; never
    backwards.
    """
    value = torch.ones(3, 1, 2, 2)
    line = Line()
    line.add(1.0, value)
    line.add(0.9, 2 * value)
    truth = torch.cat([2.5 * value[:1], value[:1], 9 * value[:1]])  # half, back again, far beyond
    line.add(0.8, truth)
    assert line.gain.tolist() == [0.5, 0.0, 1.5]


def test_the_error_is_the_one_a_skip_would_have_made() -> None:
    torch.manual_seed(0)
    x, values = torch.randn(3, 2, 4, 4), torch.randn(4, 3, 2, 4, 4)
    forecast = VelocityForecast()
    for sigma, value in zip((1.0, 0.9, 0.7), values, strict=False):
        forecast.observe(x, sigma, value)
    guess = forecast.predict(x, 0.6)
    error = forecast.observe(x, 0.6, values[3])
    # The miss, kept up over the 0.1 since the last value, would have moved x by this share of itself.
    expected = 0.1 * (guess - values[3]).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    torch.testing.assert_close(error, expected)


def test_interpolation_meets_a_parabola() -> None:
    points = [(s, torch.full((1, 2), s * s - 3 * s)) for s in (1.0, 0.7, 0.2)]
    torch.testing.assert_close(interpolate(points, 0.5), torch.full((1, 2), 0.25 - 1.5))


def test_noise_adding_solvers_make_it_forecast_the_denoised_picture() -> None:
    """With x0 constant and fresh noise in x at every step, only x0 can be forecast."""
    torch.manual_seed(0)
    clean = torch.randn(2, 3, 4, 4)
    forecast = VelocityForecast()
    for sigma in (0.9, 0.8, 0.7):
        x = (1 - sigma) * clean + sigma * torch.randn_like(clean)
        forecast.observe(x, sigma, (x - clean) / sigma)
    x = 0.4 * clean + 0.6 * torch.randn_like(clean)
    torch.testing.assert_close(x - 0.6 * forecast.predict(x, 0.6), clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_the_network_is_called_as_often_as_the_plan_says(level: str) -> None:
    flow = MixtureFlow()
    _, report = run(flow, relaxed(level), 28, flow.noise())
    assert flow.calls == report.computed == report.pattern.count("C")
    assert len(report.pattern) == 28
    assert report.speed == pytest.approx(28 / flow.calls)


def test_none_is_the_plain_run_to_the_last_bit() -> None:
    flow = MixtureFlow()
    plain = integrate(flow.velocity, flow.noise(), native_sigmas(28))
    sigmas = native_sigmas(28)
    x = flow.noise()
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = x - sigma * flow.velocity(x, sigma)
        x = x + (sigmas[i + 1] - sigma) * (x - denoised) / sigma
    same, report = run(flow, Acceleration("none"), 28, flow.noise())
    assert torch.equal(same, x)
    assert decibels(same, plain) > 200
    assert report.pattern == "C" * 28


@pytest.mark.parametrize("steps", [28, 50])
@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_it_beats_fewer_steps_at_the_same_cost(level: str, steps: int) -> None:
    flow = MixtureFlow()
    noise = flow.noise()
    full = integrate(flow.velocity, noise, native_sigmas(steps))
    got, report = run(flow, relaxed(level), steps, noise)
    fewer = integrate(flow.velocity, noise, native_sigmas(report.computed))
    assert decibels(got, full) > decibels(fewer, full) + 6


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_settling_the_past_error_pays(level: str) -> None:
    flow = MixtureFlow()
    full = integrate(flow.velocity, flow.noise(), native_sigmas(28))
    settled, _ = run(flow, relaxed(level), 28, flow.noise())
    unsettled, _ = run(flow, relaxed(level), 28, flow.noise(), settle=False)
    assert decibels(settled, full) > decibels(unsettled, full) + 2


def test_a_bad_forecast_makes_the_rest_careful() -> None:
    """The velocity jumps half way: the guard sees it at the next computed step and skips less from there
    on.
    """

    class Smooth(MixtureFlow):
        jump = 0.0

        def velocity(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return torch.ones_like(x) * (1 + sigma**2 + (self.jump if sigma < 0.85 else 0.0))

    class Jumping(Smooth):
        jump = 50.0

    guarded = Acceleration("high", forecast_error_limit=0.9)
    steady = run(Smooth(), guarded, 28, MixtureFlow().noise())[1]
    jumpy = run(Jumping(), guarded, 28, MixtureFlow().noise())[1]
    assert steady.largest_error < 0.9 < jumpy.largest_error
    assert jumpy.computed > steady.computed
    assert "forecast was off" in " ".join(jumpy.notes) and not steady.notes


def test_what_is_not_a_number_is_never_forecast_from() -> None:
    flow = MixtureFlow()
    spoilt = native_sigmas(28)[7]

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        value = MixtureFlow.velocity(flow, torch.nan_to_num(x), sigma)
        return value * float("nan") if sigma == spoilt else value

    sigmas = native_sigmas(28)
    controller = Controller(relaxed("high"), Facts(sigmas, euler=True))
    x, kinds = flow.noise(), []
    for sigma in sigmas[:-1]:
        skipped = controller.begin(controller.read_sigma(torch.tensor([sigma])), "same")
        kinds.append(skipped)
        guess = controller.forecast(x) if skipped else controller.learn(x, x - sigma * velocity(x, sigma))
        if skipped:
            assert torch.isfinite(guess).all()
    broken = next(i for i, sigma in enumerate(sigmas) if sigma == spoilt)
    assert not kinds[broken], "the test must hit a computed step"
    assert not any(kinds[broken : broken + 3]), "two sound values are needed before the next forecast"
    assert any(kinds[broken + 3 :])


def test_changed_conditions_forget_the_past() -> None:
    flow, sigmas = MixtureFlow(), native_sigmas(28)
    controller = Controller(relaxed("high"), Facts(sigmas, euler=True))
    x, kinds = flow.noise(), []
    for i, sigma in enumerate(sigmas[:-1]):
        kinds.append(controller.begin(controller.read_sigma(torch.tensor([sigma])), i >= 13))
        if not kinds[-1]:
            controller.learn(x, x - sigma * flow.velocity(x, sigma))
    assert any(kinds[:13]) and not any(kinds[13:15]) and any(kinds[15:])


def test_a_solver_that_calls_twice_computes_everything() -> None:
    sigmas = native_sigmas(12)
    calls = [sigmas[0], *(sigma for sigma in sigmas[1:-1] for _ in range(2))]
    controller = Controller(relaxed("high"), Facts(sigmas))
    x = torch.randn(1, 3, 4, 4)
    for sigma in calls:
        assert not controller.begin(controller.read_sigma(torch.tensor([sigma])), "same")
        assert controller.learn(x, x * 0.5) is not None
    report = controller.finish()
    assert report.pattern == "C" * len(calls)
    assert "more than once a step" in " ".join(report.notes)


def test_nothing_is_kept_after_the_end() -> None:
    flow = MixtureFlow()
    sigmas = native_sigmas(28)
    controller = Controller(relaxed("high"), Facts(sigmas, euler=True))
    x = flow.noise()
    for sigma in sigmas[:12]:
        if not controller.begin(sigma, "same"):
            controller.learn(x, x - sigma * flow.velocity(x, sigma))
    controller.finish()
    assert controller._forecast.known == 0
