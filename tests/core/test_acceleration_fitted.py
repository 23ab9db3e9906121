"""Fitted tables against witnesses that share no code with them: brute force, numpy's least squares, scipy's
cosine transform, and a flow that is known exactly.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from kleinod_pure.acceleration import calibration
from kleinod_pure.acceleration import gram as inner
from kleinod_pure.acceleration.controller import Controller
from kleinod_pure.acceleration.fitted import FittedPath, RuleBridge, TrapezoidBridge, find_fast, split_bands
from kleinod_pure.acceleration.linear_solver import euler_solver
from kleinod_pure.acceleration.policies.forecast import plan_usual_run
from kleinod_pure.acceleration.policies.policy import RunFacts
from kleinod_pure.acceleration.settings import describe
from kleinod_pure.base.acceleration import FAST, SKIPPED, FittedTable
from kleinod_pure.base.errors import InputError
from kleinod_pure.base.values import Acceleration, Calibration
from kleinod_pure.study import tables

from tests.core.exact_flow import native_sigmas

STEPS = 20
MODEL = "0123456789abcdef"


def random_velocities(steps: int, seed: int = 0) -> list[torch.Tensor]:
    """A path that bends: neighbours are alike, as a network's velocities are."""
    generator = torch.Generator().manual_seed(seed)
    base = [torch.randn(1, 2, 4, 3, generator=generator) for _ in range(4)]
    return [sum(math.cos(i * (k + 1) / 5) * part for k, part in enumerate(base)) for i in range(steps)]


def test_the_gram_matrix_is_that_of_the_tensors() -> None:
    velocities = random_velocities(7)
    gram = inner.gram_matrix(velocities).numpy()
    rows = np.stack([velocity.numpy().ravel().astype(np.float64) for velocity in velocities])
    size = np.mean([row @ row for row in rows])
    for i, j in itertools.product(range(7), repeat=2):
        assert gram[i, j] == pytest.approx((rows[i] * rows[j]).sum() / size)


@pytest.mark.parametrize("rule", [inner.step_rule, inner.trapezoid_rule])
def test_a_gap_costs_what_least_squares_leaves(rule) -> None:
    sigmas, velocities = native_sigmas(9), random_velocities(9)
    weights = rule(sigmas)
    costs = inner.gap_costs(inner.gram_matrix(velocities), weights, 4)
    rows = np.stack([velocity.numpy().ravel().astype(np.float64) for velocity in velocities])
    rows /= np.sqrt((rows**2).sum(1).mean())
    for p, a, b in itertools.product(range(-1, 9), range(9), range(1, 10)):
        cost = float(costs[p + 1, a, b])
        if p >= a or not a < b <= a + 4:
            assert cost == math.inf
            continue
        way = weights[a:b].sum(0).numpy() @ rows
        columns = rows[[a]] if p < 0 else rows[[a, p]]
        left = way - columns.T @ np.linalg.lstsq(columns.T, way, rcond=None)[0]
        assert cost == pytest.approx(left @ left, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 6, 9])
def test_no_other_choice_of_calls_costs_less(calls: int) -> None:
    """Dynamic programming against all subsets."""
    costs = inner.gap_costs(inner.gram_matrix(random_velocities(9, 3)), inner.step_rule(native_sigmas(9)), 9)

    def price(chosen: tuple[int, ...]) -> float:
        ends = [*chosen[1:], 9]
        befores = [-1, *chosen[:-1]]
        return sum(float(costs[p + 1, a, b]) for p, a, b in zip(befores, chosen, ends, strict=True))

    everything = [(0, *rest) for rest in itertools.combinations(range(1, 9), calls - 1)]
    chosen = inner.choose_calls(costs, calls)
    assert len(chosen) == calls and chosen in everything
    assert price(chosen) == pytest.approx(min(map(price, everything)))


def test_the_bands_are_scipys_cosine_transform_cut_in_rings() -> None:
    value = torch.randn(2, 3, 8, 6)
    parts = split_bands(value, 3)
    torch.testing.assert_close(sum(parts), value)
    spectra = [scipy.fft.dctn(part.numpy(), axes=(2, 3), norm="ortho") for part in parts]
    radius = np.hypot(np.arange(8)[:, None] / 8, np.arange(6)[None] / 6)
    for spectrum, low, high in zip(spectra, (0, 0.2, 0.45), (0.2, 0.45, 9), strict=True):
        outside = (radius < low - 1e-6) | (radius > high + 1e-6)
        assert np.abs(spectrum[..., outside]).max() < 1e-5 and np.abs(spectrum[..., ~outside]).max() > 0.1


class Flow:
    """Pictures `[1, 2, 4, 4]` under a velocity that bends over sigma alike for all, as no line does."""

    def __init__(self, first: int, count: int) -> None:
        noise = torch.randn(64, 1, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.starts = list(noise[first : first + count])

    def velocity(self, picture: int, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return math.cos(9 * sigma) * x + math.sin(7 * sigma) * x.roll(1, -1) + 0.3 * torch.tanh(x)

    def path(self, sigmas: tuple[float, ...]) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
        """x at every level, a picture a row, and the sum of the Gram matrices."""
        paths, gram = [], torch.zeros(len(sigmas) - 1, len(sigmas) - 1, dtype=torch.float64)
        for x in self.starts:
            path, velocities = [x], []
            for sigma, following in zip(sigmas, sigmas[1:], strict=False):
                velocities.append(self.velocity(0, path[-1], sigma))
                path.append(path[-1] + (following - sigma) * velocities[-1])
            paths.append(path)
            gram += inner.gram_matrix(velocities)
        return paths, gram


def fit(flow: Flow, calls: int, bands: int = 1) -> tuple[FittedTable, tables.FittedWeights]:
    sigmas = native_sigmas(STEPS)
    paths, gram = flow.path(sigmas)
    chosen = inner.choose_calls(inner.gap_costs(gram, inner.step_rule(sigmas), 6), calls)
    levels = [*(sigmas[step] for step in chosen), 0.0]
    following = [*chosen[1:], STEPS]
    wanted = [[path[step] for path in paths] for step in following]
    bridges = [RuleBridge(sigmas, chosen) for _ in paths]
    found = tables.fit_weights(flow.starts, wanted, levels, bridges, flow.velocity, bands)
    errors = tuple(tables.relative_error(end, path[-1]) for end, path in zip(found.ends, paths, strict=True))
    table = FittedTable(
        SKIPPED,
        MODEL,
        4.0,
        sigmas,
        chosen,
        tuple(levels),
        found.weights,
        errors,
        tuple(2 * error for error in errors),
    )
    return table, found


def test_the_weights_are_a_ridge_regression_by_numpy() -> None:
    """The whole closed loop once more in numpy, from the velocities that the fit asked for."""
    flow, sigmas = Flow(0, 3), native_sigmas(4)
    paths, _ = flow.path(sigmas)
    asked: list[list[np.ndarray]] = [[] for _ in paths]

    def velocity(picture: int, x: torch.Tensor, sigma: float) -> torch.Tensor:
        fresh = flow.velocity(picture, x, sigma)
        asked[picture].append((x.numpy().ravel(), fresh.numpy().ravel()))
        return fresh

    wanted = [[path[step] for path in paths] for step in (1, 2, 3, 4)]
    bridges = [TrapezoidBridge(sigmas) for _ in paths]
    found = tables.fit_weights(flow.starts, wanted, sigmas, bridges, velocity, bands=1)
    for call in range(4):
        width = sigmas[call + 1] - sigmas[call]
        columns, aims = [], []
        for picture, path in enumerate(paths):
            x, newest = asked[picture][call]
            seen = [v for _, v in asked[picture][: call + 1]][::-1]
            plain = newest
            if call:
                plain = newest + (sigmas[call] - sigmas[call - 1]) / (2 * width) * (newest - seen[1])
            changes = [a - b for a, b in zip(seen[:3], seen[1:3], strict=False)]
            columns.append(np.stack([plain, *changes], 1))
            aims.append((path[call + 1].numpy().ravel() - x) / width - plain)
        matrix, aim = np.concatenate(columns), np.concatenate(aims)
        size = np.sqrt(tables.RIDGE * (matrix**2).sum(0))
        solution = np.linalg.lstsq(
            np.concatenate([matrix, np.diag(size)]), np.concatenate([aim, np.zeros(len(size))]), rcond=None
        )[0]
        [row] = found.weights[call]
        known = min(call + 1, tables.MEMORY)
        assert len(row) == known + 1 and row[0] == pytest.approx(1 + solution[0], abs=1e-6)
        ours = matrix[:, 0] * row[0] + sum(
            weight * np.concatenate([asked[p][call - k][1] for p in range(len(paths))])
            for k, weight in enumerate(row[1:])
        )
        np.testing.assert_allclose(ours, matrix[:, 0] + matrix @ solution, atol=1e-6)


def run(flow: Flow, picture: int, settings: Acceleration, facts: RunFacts) -> tuple[torch.Tensor, object]:
    """Euler under a Controller, as the patch drives it."""
    controller, x = Controller(settings, facts), flow.starts[picture]
    for sigma, following in zip(facts.sigmas, facts.sigmas[1:], strict=False):
        if controller.begin(controller.read_sigma(torch.tensor([sigma])), "same"):
            denoised = controller.forecast(x)
        else:
            denoised = controller.learn(x, x - sigma * flow.velocity(picture, x, sigma))
        x = x + (following - sigma) * (x - denoised) / sigma
    return x, controller.finish()


def facts_of(table: FittedTable, **changes: object) -> RunFacts:
    known = RunFacts(
        table.sigmas, euler_solver(table.sigmas), regular=True, fingerprint=MODEL, tables=(table,)
    )
    return replace(known, **changes)


BOLD = Acceleration("high", forecast_error_limit=10.0)


@pytest.fixture(scope="module")
def table() -> FittedTable:
    return fit(Flow(0, 12), 9)[0]


def test_high_goes_by_the_table_and_ends_nearer_on_noise_it_was_not_fitted_to(table: FittedTable) -> None:
    """Fails where the table is not used, or used wrongly."""
    flow = Flow(40, 16)
    paths, _ = flow.path(table.sigmas)
    errors = {}
    for name, tables_ in (("fitted", (table,)), ("rule", ())):
        errors[name] = []
        for picture, path in enumerate(paths):
            end, report = run(flow, picture, BOLD, facts_of(table, tables=tables_))
            errors[name].append(tables.relative_error(end, path[-1]))
            assert report.computed == table.calls
        if name == "fitted":
            assert report.pattern == "".join("C" if i in table.computed else "R" for i in range(STEPS))
            assert "mask: fitted to this model (20 steps, guidance 4)" in report.notes
        else:
            assert "mask: rule" in report.notes
    assert np.median(errors["fitted"]) < 0.8 * np.median(errors["rule"])


def test_the_run_is_the_one_that_was_fitted() -> None:
    """One picture alone is fitted to itself: the policy must arrive where the fit did."""
    flow = Flow(5, 1)
    table, found = fit(flow, 9)
    end, _ = run(flow, 0, BOLD, facts_of(table))
    torch.testing.assert_close(end.double(), found.ends[0].double(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 4.5},
        {"fingerprint": "another"},
        {"tables": ()},
        {"solver": None},
        {"sigmas": native_sigmas(STEPS, 1.2), "solver": euler_solver(native_sigmas(STEPS, 1.2))},
        {"sigmas": native_sigmas(STEPS + 1), "solver": euler_solver(native_sigmas(STEPS + 1))},
    ],
)
def test_what_it_was_not_fitted_for_goes_by_the_rule(table: FittedTable, changes: dict) -> None:
    _, report = run(Flow(3, 1), 0, BOLD, facts_of(table, **changes))
    assert "mask: rule" in report.notes


@pytest.mark.parametrize(
    "settings",
    [
        replace(BOLD, cache_start_step=2),
        replace(BOLD, cache_max_consecutive_steps=2),
        replace(BOLD, acceleration="low"),
        replace(BOLD, calibration=Calibration("rule (no table)")),
    ],
)
def test_the_users_own_dials_win_over_the_table(table: FittedTable, settings: Acceleration) -> None:
    _, report = run(Flow(3, 1), 0, settings, facts_of(table))
    assert "mask: rule" in report.notes


def test_a_calibration_picked_by_name_counts_where_the_model_cannot_be_told(table: FittedTable) -> None:
    settings = replace(BOLD, calibration=Calibration("mine", tables=(table,)))
    _, report = run(Flow(3, 1), 0, settings, facts_of(table, fingerprint="", tables=()))
    assert "mask: fitted" in " ".join(report.notes)


def test_the_info_text_says_what_a_calibration_is_fitted_for(table: FittedTable) -> None:
    mine = Calibration("mine", tables=(table, replace(table, guidance=7.0)))
    text = describe(replace(BOLD, calibration=mine))
    assert "mine, fitted for: 20 steps, guidance 4; 20 steps, guidance 7" in text


def test_forgetting_in_mid_run_costs_calls_not_the_picture(table: FittedTable) -> None:
    flow, facts = Flow(3, 1), facts_of(table)
    controller, x = Controller(BOLD, facts), flow.starts[0]
    for i, (sigma, following) in enumerate(zip(facts.sigmas, facts.sigmas[1:], strict=False)):
        key = i >= table.computed[4] + 1
        if controller.begin(controller.read_sigma(torch.tensor([sigma])), key):
            denoised = controller.forecast(x)
        else:
            denoised = controller.learn(x, x - sigma * flow.velocity(0, x, sigma))
        x = x + (following - sigma) * (x - denoised) / sigma
    true = flow.path(facts.sigmas)[0][0][-1]
    assert controller.finish().computed >= table.calls and tables.relative_error(x, true) < 0.2


def test_kleinod_fast_is_found_by_its_own_sigmas(table: FittedTable) -> None:
    levels = native_sigmas(8)
    fast = FittedTable(FAST, MODEL, 4.0, levels, tuple(range(8)), levels, (((1.0,),),) * 8, (0.1,), (0.2,))
    assert find_fast([table, fast], levels, 4.0) == fast
    assert find_fast([table, fast], levels, 7.0) is None and find_fast([table], levels, 4.0) is None
    path, velocity = FittedPath(fast), torch.ones(1, 1, 2, 2)
    torch.testing.assert_close(path.add(0, velocity), velocity)


def test_tables_are_kept_and_those_of_other_runs_stay(table: FittedTable, tmp_path: Path) -> None:
    mine = Calibration("mine", (1.0, 0.0), 0.3, tables=(table,))
    calibration.save(mine, {}, tmp_path)
    assert calibration.load("mine", tmp_path) == mine
    stronger, again = replace(table, guidance=7.0), replace(table, errors=(0.01,), rule_errors=(0.02,))
    calibration.save(replace(mine, tables=(stronger,)), {}, tmp_path)
    calibration.save(replace(mine, tables=(again,)), {}, tmp_path)
    assert set(calibration.load("mine", tmp_path).tables) == {stronger, again}
    assert (tmp_path / "mine.json").stat().st_size < 20_000


def test_a_calibration_from_before_tables_still_loads(tmp_path: Path) -> None:
    old = {"version": 1, "tea_coefficients": [1, 0], "tea_limit": 0.2, "profile": [0.5, 1.5], "fitted_on": {}}
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    old_one = calibration.load("old", tmp_path)
    assert old_one == Calibration("old", (1.0, 0.0), 0.2)
    assert plan_usual_run(Acceleration("high", calibration=old_one), 28) == plan_usual_run(
        Acceleration("high"), 28
    )
    assert "Tea's curve only" in describe(Acceleration("high", calibration=old_one))


def test_a_file_that_cannot_be_read_is_not_lost(table: FittedTable, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{ half", encoding="utf-8")
    calibration.save(Calibration("mine", tables=(table,)), {}, tmp_path)
    assert calibration.load("mine", tmp_path).tables == (table,)
    assert (tmp_path / "mine.json.unread").read_text(encoding="utf-8") == "{ half"
    assert calibration.list_names(tmp_path) == ["mine"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"computed": (0, 0)},
        {"levels": (1.0, 0.5)},
        {"weights": ()},
        {"errors": ()},
        {"guidance": math.nan},
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(table: FittedTable, changes: dict) -> None:
    with pytest.raises(InputError, match="hold together"):
        replace(table, **changes)
