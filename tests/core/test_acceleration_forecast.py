"""The forecast on flows that are known exactly: what it may promise, and that its error figure is true."""

from __future__ import annotations

import gc
import types
from dataclasses import replace

import pytest
import torch
from kleinod_pure.acceleration import presets
from kleinod_pure.acceleration.controller import Controller
from kleinod_pure.acceleration.extrapolation import (
    JITTER,
    LENGTH,
    LinearExtrapolation,
    VelocityForecast,
    interpolate,
    weigh_by_likeness,
)
from kleinod_pure.acceleration.linear_solver import LinearSolver, Settlement, euler_solver, probe_solver
from kleinod_pure.acceleration.policies.forecast import make_plan
from kleinod_pure.acceleration.policies.guidance import GuidanceReuse
from kleinod_pure.acceleration.policies.policy import RunFacts
from kleinod_pure.acceleration.report import RunReport
from kleinod_pure.base.noise import fit_mu
from kleinod_pure.base.values import Acceleration
from kleinod_pure.sampling.schedule import build_schedule

from tests.core.exact_flow import MixtureFlow, decibels, integrate, native_sigmas


def run(
    flow: MixtureFlow,
    value: Acceleration,
    steps: int,
    x: torch.Tensor,
    sigmas: tuple[float, ...] = (),
    **facts: object,
):
    """Euler's method under a Controller, the way the patch drives it. Returns the result and the report."""
    sigmas = sigmas or native_sigmas(steps)
    known = {"solver": euler_solver(sigmas), "regular": True, **facts}
    controller = Controller(value, RunFacts(sigmas, **known))
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
    line = LinearExtrapolation()
    assert line.add(1.0, start + slope) is None
    line.add(0.8, start + 0.8 * slope)
    torch.testing.assert_close(line.at(0.5), start + 0.5 * slope)
    assert line.add(0.5, start + 0.5 * slope).max() < 1e-5


def test_the_gain_follows_the_record_and_stays_in_bounds() -> None:
    """Where the truth moved half as far as the line said, half the slope is used next time; never
    backwards.
    """
    value = torch.ones(3, 1, 2, 2)
    line = LinearExtrapolation()
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


def test_what_lies_between_two_velocities_is_told_as_well_as_their_likeness_allows() -> None:
    """Paths drawn with the likeness that was measured, around levels far apart: of all weights that add up
    to 1, found by trying them, none misses less; a parabola and half of each neighbour miss more.
    """
    torch.manual_seed(0)
    times = torch.tensor([0.62, 0.5, 0.38, 0.43], dtype=torch.float64)
    alike = torch.exp(-((times[:, None] - times) ** 2) / (2 * LENGTH**2)) + JITTER * torch.eye(4)
    paths = torch.linalg.cholesky(alike) @ torch.randn(4, 20_000, dtype=torch.float64)
    paths = paths + 5 * torch.randn(20_000, dtype=torch.float64)
    known, truth = paths[:3], paths[3]

    def miss(weights: list[float]) -> float:
        return float((torch.tensor(weights, dtype=torch.float64) @ known - truth).square().mean())

    found = weigh_by_likeness(times[:3].tolist(), 0.43)
    assert sum(found) == pytest.approx(1)
    step = 0.02
    tried = [(a * step, b * step) for a in range(-20, 5) for b in range(0, 50)]
    assert miss(found) <= min(miss([a, b, 1 - a - b]) for a, b in tried) * 1.02
    parabola = interpolate([(float(t), torch.eye(3)[i]) for i, t in enumerate(times[:3])], 0.43).tolist()
    assert miss(found) < 0.95 * miss(parabola)
    assert miss(found) < 0.5 * miss([0.0, 0.5, 0.5])


def test_of_velocities_next_to_each_other_likeness_makes_a_parabola() -> None:
    for apart in (0.01, 0.001):
        times = [0.5, 0.5 - apart, 0.5 - 2 * apart]
        points = [(time, torch.eye(3)[i]) for i, time in enumerate(times)]
        for at in (0.5 - 1.2 * apart, 0.5 - 1.7 * apart):
            assert weigh_by_likeness(times, at) == pytest.approx(interpolate(points, at).tolist(), abs=2e-3)


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


@pytest.mark.parametrize("level", ["low", "medium", "high", "highest"])
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


@pytest.mark.parametrize("steps", [12, 20, 28])
@pytest.mark.parametrize("level", ["medium", "high", "highest"])
def test_in_its_own_time_a_klein_ends_nearer_where_computed_steps_lie_close(level: str, steps: int) -> None:
    """The flow is not the one the likeness was read off."""
    flow = MixtureFlow()
    noise = flow.noise()
    full = integrate(flow.velocity, noise, native_sigmas(steps))
    other, report = run(flow, relaxed(level), steps, noise)
    klein, same = run(flow, relaxed(level), steps, noise, mu=2.05)
    assert same.pattern == report.pattern
    if steps == 12:
        assert torch.equal(klein, other)
    else:
        assert decibels(klein, full) > decibels(other, full) + 0.5


@pytest.mark.parametrize("start", [1.1, 1.147, 2.0, 14.6])
def test_sigmas_of_the_users_own_may_begin_above_1(start: float) -> None:
    flow = MixtureFlow()
    sigmas = (start, 0.5 * (start + 1), *native_sigmas(28))
    result, report = run(flow, relaxed("high"), 30, start * flow.noise(), sigmas, mu=2.05)
    assert report.computed < 30
    assert bool(torch.isfinite(result).all())


@pytest.mark.parametrize("steps", [28, 50])
@pytest.mark.parametrize("level", ["low", "medium", "high", "highest"])
def test_it_beats_fewer_steps_at_the_same_cost(level: str, steps: int) -> None:
    flow = MixtureFlow()
    noise = flow.noise()
    full = integrate(flow.velocity, noise, native_sigmas(steps))
    got, report = run(flow, relaxed(level), steps, noise)
    fewer = integrate(flow.velocity, noise, native_sigmas(report.computed))
    assert decibels(got, full) > decibels(fewer, full) + 6


@pytest.mark.parametrize("level", ["low", "medium", "high", "highest"])
def test_settling_the_past_error_pays(level: str) -> None:
    flow = MixtureFlow()
    full = integrate(flow.velocity, flow.noise(), native_sigmas(28))
    settled, _ = run(flow, relaxed(level), 28, flow.noise())
    unsettled, _ = run(flow, relaxed(level), 28, flow.noise(), solver=None)
    assert decibels(settled, full) > decibels(unsettled, full) + 2


class Rounded(MixtureFlow):
    """A velocity that hardly changes, from a network whose rounding is larger than that."""

    def velocity(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.calls += 1
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(self.calls), dtype=x.dtype)
        return torch.ones_like(x) + (1 - sigma) ** 2 + 0.02 * noise * (sigma > presets.ROUGH_SIGMA)


@pytest.mark.parametrize("level", ["medium", "high", "highest"])
def test_rounding_is_not_continued_along_a_line(level: str) -> None:
    """The first forecasts of a network in bfloat16 are repetitions: they miss less."""

    def missed(rough: bool) -> float:
        flow = Rounded()
        _, report = run(flow, relaxed(level), 28, flow.noise(8), rough=rough)
        early = [record for record in report.records if record.sigma > presets.ROUGH_SIGMA]
        return sum(record.error for record in early if record.error is not None)

    assert missed(rough=True) < 0.9 * missed(rough=False)


def test_above_its_sigma_it_repeats_and_below_it_draws_a_line() -> None:
    forecast = VelocityForecast(line_below=0.9)
    x = torch.zeros(1, 4, dtype=torch.float64)
    for sigma, value in ((0.98, 1.0), (0.96, 2.0)):
        forecast.observe(x, sigma, torch.full_like(x, value))
    assert float(forecast.predict(x, 0.94)[0, 0]) == 2.0
    assert float(forecast.predict(x, 0.88)[0, 0]) > 5


class Bent(MixtureFlow):
    """A velocity that bends more and more towards the end, the more so the larger `bend` `[B, 1]`."""

    bend: torch.Tensor = torch.ones(1, 1)

    def velocity(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.ones_like(x) + self.bend * (1 - sigma) ** 4


class Decided(MixtureFlow):
    """A velocity that changes its mind by `jump` around one sigma, and is even before and after."""

    def __init__(self, jump: float, at: float) -> None:
        super().__init__()
        self.jump, self.at = jump, at

    def velocity(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        turned = torch.sigmoid(torch.tensor((self.at - sigma) / 0.02, dtype=x.dtype))
        return torch.ones_like(x) * (1 + self.jump * turned)


def decided(jump: float, at: float, **facts: object) -> RunReport:
    flow = Decided(jump, at)
    return run(flow, Acceleration("high"), 28, flow.noise(1), **facts)[1]


def test_a_picture_is_guarded_most_where_it_is_decided() -> None:
    """The same miss is little at the end, and much while next to nothing of the picture is there."""
    calm, early, late = decided(0.0, 0.95), decided(10.0, 0.95), decided(1.5, 0.6)
    assert calm.pattern == late.pattern and early.computed > calm.computed
    differs = [i for i, (a, b) in enumerate(zip(calm.pattern, early.pattern, strict=True)) if a != b]
    first = early.records[differs[0]]
    assert first.sigma > 0.9 and first.kind == "C"
    before = max(record.error or 0.0 for record in early.records[: differs[0]])
    assert before < max(record.error or 0.0 for record in late.records)
    assert "computed than planned" in " ".join(early.notes)
    # What a solver adds as noise is no miss of the picture.
    assert decided(10.0, 0.95, solver=None).computed == calm.computed


def test_the_limit_grows_with_the_picture_and_shrinks_with_the_steps() -> None:
    at = {sigma: presets.error_limit(Acceleration("high"), sigma, 11, 28, 4.0) for sigma in (0.95, 0.5, 0.1)}
    assert at[0.5] == pytest.approx(0.25) and at[0.95] < at[0.5] < at[0.1]
    assert presets.error_limit(Acceleration("high"), 0.5, 22, 50, 4.0) == pytest.approx(0.125)
    assert presets.error_limit(relaxed("high"), 0.999, 20, 50, 4.0) > 1e9
    few, fewer = (presets.error_limit(Acceleration("highest"), 0.5, count, 28, 4.0) for count in (9, 7))
    assert few == fewer == pytest.approx(0.25 * 11 / 9)


def test_a_run_that_computes_half_of_its_steps_keeps_to_its_plan_unless_told_to_be_stricter() -> None:
    assert presets.error_limit(Acceleration("medium"), 0.9, 16, 28, 4.0) > 1e9
    assert presets.error_limit(Acceleration("medium"), 0.9, 16, 28, 7.0) < 0.1, "strong guidance is guarded"
    strict = Acceleration("medium", forecast_error_limit=0.1)
    assert presets.error_limit(strict, 0.9, 16, 28, 4.0) == pytest.approx(0.1 * 0.2 * 11 / 16)
    flow = Decided(10.0, 0.95)
    (loose, told) = (run(flow, value, 28, flow.noise(1))[1] for value in (Acceleration("medium"), strict))
    assert loose.computed == 16 < told.computed


def added(jump: float, at: float, below: float, guidance: float) -> float:
    """What the first computed step after a skip gets added below a sigma, as a share of the velocity."""
    flow, sigmas = Decided(jump, at), native_sigmas(28)
    known = {"solver": euler_solver(sigmas), "regular": True, "guidance": guidance}
    controller, x = Controller(relaxed("medium"), RunFacts(sigmas, **known)), flow.noise(1)
    for i, sigma in enumerate(sigmas[:-1]):
        velocity = flow.velocity(x, sigma)
        if controller.begin(controller.read_sigma(torch.tensor([sigma])), "same"):
            denoised = controller.forecast(x)
        else:
            denoised = controller.learn(x, x - sigma * velocity)
            extra = denoised - (x - sigma * velocity)
            if sigma < below and extra.abs().max() > 1e-12:
                return float(extra.norm() / velocity.norm())
        x = x + (sigmas[i + 1] - sigma) * (x - denoised) / sigma
    raise AssertionError("nothing was made up for")


def test_of_what_goes_wrong_early_little_is_made_up_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction of the size of the picture's own change turns one picture into another."""
    late = presets.DECIDED_SIGMA
    cases = {"small": (0.03, 0.99, 1.0), "early": (8.0, 0.99, 1.0), "late": (8.0, 0.8, late)}
    held = {name: added(*case, 4.0) for name, case in cases.items()}
    milder = added(*cases["early"], 2.0)
    monkeypatch.setattr(presets, "SETTLED_PER_GUIDANCE", 1e6)
    free = {name: added(*case, 4.0) for name, case in cases.items()}
    assert held["small"] == free["small"] and held["late"] == free["late"], "these in full"
    assert held["early"] < 0.5 * free["early"]
    assert held["early"] == pytest.approx(2 * milder), "guidance multiplies what is usual"


def test_one_wild_picture_early_leaves_what_the_others_of_its_batch_get() -> None:
    flow = Bent()
    calm, both = (torch.tensor(jumps, dtype=torch.float64).reshape(-1, 1) for jumps in ([0.1], [0.1, 50.0]))
    seen = []
    for bend in (calm, both):
        flow.velocity = lambda x, sigma, bend=bend: torch.ones_like(x) + bend * (sigma < 0.985)
        x = torch.ones(len(bend), 16, dtype=torch.float64)
        seen.append(run(flow, relaxed("medium"), 28, x)[0][0])
    torch.testing.assert_close(*seen)


def bent(*bends: float, limit: float = 0.25) -> RunReport:
    flow = Bent()
    flow.bend = torch.tensor(bends, dtype=torch.float64)[:, None]
    settings = Acceleration("highest", forecast_error_limit=limit)
    return run(flow, settings, 28, MixtureFlow().noise(len(bends)))[1]


def test_the_guard_acts_before_the_harm_is_done() -> None:
    """What earlier gaps did wrong says what the next would: it is not taken where that is too much."""
    calm, wild = bent(0.0), bent(400.0)
    assert wild.computed > calm.computed
    assert "would have gone wrong" in " ".join(wild.notes) and calm.notes == ["mask: rule"]
    assert bent(400.0, limit=10.0).computed == calm.computed


def test_one_wild_picture_does_not_slow_the_others_of_its_batch() -> None:
    assert bent(0.0, 0.0, 400.0).computed == bent(0.0).computed
    assert bent(0.0, 400.0, 400.0).computed > bent(0.0).computed


def test_a_solver_is_read_off_and_undone() -> None:
    """Adams-Bashforth of second order, of which the probe knows nothing: wrong velocities made up for at the
    next computed step leave the run where it would have been.
    """
    sigmas = [1.0, 0.8, 0.65, 0.4, 0.2, 0.0]

    def solve(model, x, levels):
        last = None
        for i in range(len(sigmas) - 1):
            velocity = (x - model(x, levels[i : i + 1])) / sigmas[i]
            width = sigmas[i + 1] - sigmas[i]
            used = velocity if last is None else 1.5 * velocity - 0.5 * last
            x, last = x + width * used, velocity
        return x

    solver = probe_solver(solve, sigmas)
    assert solver is not None and [len(row) for row in solver.weights][:1] == [1]
    flow = {s: torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(int(100 * s))) for s in sigmas}
    start = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(9))

    def truth(x, sigma):
        return x - float(sigma) * flow[round(float(sigma), 2)]

    wanted = solve(truth, start, torch.tensor(sigmas))
    settlement, skipped = Settlement(solver), []

    def wrong_once(x, sigma):
        level = round(float(sigma), 2)
        index = sigmas.index(level)
        denoised = truth(x, level)
        if index in (1, 2):
            error = torch.full_like(x, 0.3)
            skipped.append((index, level, error))
            return denoised + level * error
        added = settlement.settle(list(skipped), index, x)
        skipped.clear()
        return denoised if added is None else denoised + added

    torch.testing.assert_close(solve(wrong_once, start, torch.tensor(sigmas)), wanted, atol=1e-4, rtol=1e-4)


def test_solvers_that_add_noise_or_call_twice_are_not_read() -> None:
    sigmas = [1.0, 0.7, 0.3, 0.0]

    def noisy(model, x, levels):
        for i in range(3):
            x = model(x, levels[i : i + 1]) + levels[i + 1] * torch.randn_like(x)
        return x

    def twice(model, x, levels):
        for i in range(3):
            x = (model(x, levels[i : i + 1]) + model(x, levels[i : i + 1])) / 2
        return x

    assert probe_solver(noisy, sigmas) is None and probe_solver(twice, sigmas) is None
    euler = euler_solver(sigmas)

    def plain(model, x, levels):
        for i in range(3):
            slope = (x - model(x, levels[i : i + 1])) / levels[i]
            x = x + (levels[i + 1] - levels[i]) * slope
        return x

    read = probe_solver(plain, sigmas)
    assert isinstance(read, LinearSolver) and read.carry == pytest.approx(euler.carry, abs=1e-5)
    assert [at for row in read.weights for at, _ in row] == [0, 1, 2]


def test_what_is_not_a_number_is_never_forecast_from() -> None:
    flow = MixtureFlow()
    spoilt = native_sigmas(28)[8]

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        value = MixtureFlow.velocity(flow, torch.nan_to_num(x), sigma)
        return value * float("nan") if sigma == spoilt else value

    sigmas = native_sigmas(28)
    controller = Controller(relaxed("high"), RunFacts(sigmas, euler_solver(sigmas), regular=True))
    x, kinds = flow.noise(), []
    for sigma in sigmas[:-1]:
        skipped = controller.begin(controller.read_sigma(torch.tensor([sigma])), "same")
        kinds.append(skipped)
        guess = controller.forecast(x) if skipped else controller.learn(x, x - sigma * velocity(x, sigma))
        if skipped:
            assert torch.isfinite(guess).all()
    broken = next(i for i, sigma in enumerate(sigmas) if sigma == spoilt)
    assert not kinds[broken], "the test must hit a computed step"
    assert not any(kinds[broken : broken + 2]), "a sound value is needed first"
    assert any(kinds[broken + 2 :])


def test_changed_conditions_forget_the_past() -> None:
    flow, sigmas = MixtureFlow(), native_sigmas(28)
    controller = Controller(relaxed("high"), RunFacts(sigmas, euler_solver(sigmas), regular=True))
    x, kinds = flow.noise(), []
    for i, sigma in enumerate(sigmas[:-1]):
        kinds.append(controller.begin(controller.read_sigma(torch.tensor([sigma])), i >= 13))
        if not kinds[-1]:
            controller.learn(x, x - sigma * flow.velocity(x, sigma))
    assert any(kinds[:13]) and not kinds[13] and any(kinds[14:])


def test_where_guidance_ends_velocities_from_before_are_forgotten() -> None:
    """A step planned to be skipped is computed there, and held against nothing; the plan goes on after it."""
    flow, sigmas = MixtureFlow(), native_sigmas(28)
    settings, facts = relaxed("high"), RunFacts(sigmas, euler_solver(sigmas), regular=True)
    plan = make_plan(settings, facts)
    last = max(step for step, skipped in enumerate(plan.reuse) if skipped)
    end = next(step for step, skipped in enumerate(plan.reuse) if skipped and step >= 14)
    cut = replace(settings, guidance_end_percentage=100 * end // 28)
    controller = Controller(cut, facts)
    (guidance,) = (policy for policy in controller.policies if isinstance(policy, GuidanceReuse))
    x = flow.noise()
    for index, sigma in enumerate(sigmas[:-1]):
        if not controller.begin(controller.read_sigma(torch.tensor([sigma])), "same"):
            denoised = x - sigma * flow.velocity(x, sigma)
            if index < end:
                guidance.learn_branches(denoised, denoised)
            controller.learn(x, denoised)
    records = controller.finish().records
    assert records[end].kind == "C" and records[end].error is None
    assert records[last].kind == "R"


def test_a_solver_that_calls_twice_computes_everything() -> None:
    sigmas = native_sigmas(12)
    calls = [sigmas[0], *(sigma for sigma in sigmas[1:-1] for _ in range(2))]
    controller = Controller(relaxed("high"), RunFacts(sigmas))
    x = torch.randn(1, 3, 4, 4)
    for sigma in calls:
        assert not controller.begin(controller.read_sigma(torch.tensor([sigma])), "same")
        assert controller.learn(x, x * 0.5) is not None
    report = controller.finish()
    assert report.pattern == "C" * len(calls)
    assert "more than once a step" in " ".join(report.notes)


def count_tensors(thing: object) -> int:
    """Tensors within reach of `thing`."""
    found, seen, waiting = 0, set(), [thing]
    while waiting:
        here = waiting.pop()
        if id(here) in seen or isinstance(here, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(here))
        found += isinstance(here, torch.Tensor)
        waiting += gc.get_referents(here)
    return found


def test_nothing_is_kept_after_the_end() -> None:
    flow = MixtureFlow()
    sigmas = native_sigmas(28)
    controller = Controller(relaxed("high"), RunFacts(sigmas, euler_solver(sigmas), regular=True))
    x = flow.noise()
    for sigma in sigmas[:12]:
        if not controller.begin(sigma, "same"):
            controller.learn(x, x - sigma * flow.velocity(x, sigma))
    assert count_tensors(controller) > 0
    controller.finish()
    assert count_tensors(controller) == 0


@pytest.mark.parametrize("rule", ["karras", "exponential", "beta"])
def test_schedules_with_wide_first_steps_are_worth_skipping_in(rule: str) -> None:
    """By far nearer to the whole run than as few plain steps, and than a plan to which every step is one."""
    flow = MixtureFlow()
    x, mu = flow.noise(), fit_mu(64, 28)
    sigmas = tuple(build_schedule(rule, 28, 64).sigmas.double().tolist())
    whole = integrate(flow.velocity, x, sigmas)
    few = integrate(flow.velocity, x, build_schedule(rule, 11, 64).sigmas.double().tolist())
    got, report = run(flow, relaxed("high"), 28, x, sigmas, mu=mu)
    blind, _ = run(flow, relaxed("high"), 28, x, sigmas)
    assert report.computed == 11
    assert decibels(got, whole) > decibels(few, whole) + 6
    assert rule == "beta" or decibels(got, whole) > decibels(blind, whole) + 1
