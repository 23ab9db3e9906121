"""What plain runs teach: sketches against the tensors themselves, what is kept, and what is believed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from kleinod_pure.acceleration import learning
from kleinod_pure.acceleration.fitted import find_table
from kleinod_pure.acceleration.learning import Kind, Lessons, Recorder, Sketcher, choose_steps, read_lessons
from kleinod_pure.acceleration.linear_solver import euler_solver
from kleinod_pure.acceleration.policies.forecast import make_plan
from kleinod_pure.acceleration.policies.policy import RunFacts
from kleinod_pure.base.acceleration import SKIPPED, FittedTable
from kleinod_pure.base.values import Acceleration

from tests.core.exact_flow import native_sigmas

STEPS = 28
MODEL = "0123456789abcdef"
KIND = Kind(MODEL, 4.0, tuple(native_sigmas(STEPS)))


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def record(velocities: list[torch.Tensor], start: torch.Tensor, sigmas: tuple[float, ...]) -> Recorder:
    """Euler's run along these velocities, as a solver shows it."""
    recorder, x = Recorder(sigmas), start
    for step, velocity in enumerate(velocities):
        recorder.note(step, x, x - sigmas[step] * velocity)
        x = x + (sigmas[step + 1] - sigmas[step]) * velocity
    return recorder


@pytest.mark.parametrize(("shape", "tolerance"), [((1, 4, 8, 8), 1e-5), ((1, 64, 48, 40), 0.04)])
def test_the_products_of_a_run_are_those_of_its_tensors(shape: tuple[int, ...], tolerance: float) -> None:
    """Small ones exactly, large ones within four standard deviations; also of differences of neighbours."""
    parts = [draw(shape, seed) for seed in range(3)]
    velocities = [sum(math.cos(i * (k + 1) / 9) * part for k, part in enumerate(parts)) for i in range(9)]
    start = draw(shape, 7)
    gram = record(velocities, start, tuple(native_sigmas(9))).read_gram()
    rows = torch.stack([start.flatten(), *(velocity.flatten() for velocity in velocities)]).double()
    true = rows @ rows.T / (rows[1:] ** 2).sum(1).mean()
    lengths = true.diagonal().sqrt()
    assert float(((gram - true) / (lengths[:, None] * lengths)).abs().max()) < tolerance
    for i in range(1, 9):
        step = torch.zeros(10, dtype=torch.float64)
        step[i], step[i + 1] = -1, 1
        assert float(step @ gram @ step) == pytest.approx(float(step @ true @ step), rel=2 * tolerance)


def test_a_sketch_is_small_and_linear() -> None:
    a, b = draw((1, 128, 64, 64), 0), draw((1, 128, 64, 64), 1)
    sketcher = Sketcher(a.numel(), a.device)
    assert sketcher.sketch(a).shape == (learning.SKETCH,)
    torch.testing.assert_close(
        sketcher.sketch(2 * a - b), 2 * sketcher.sketch(a) - sketcher.sketch(b), atol=1e-3, rtol=1e-3
    )


def test_half_a_run_and_one_that_is_not_a_number_teach_nothing() -> None:
    sigmas = tuple(native_sigmas(9))
    velocities = [draw((1, 2, 4, 4), i) for i in range(9)]
    assert record(velocities[:8], draw((1, 2, 4, 4), 9), sigmas).read_gram() is None
    broken = [*velocities[:8], velocities[8] * math.nan]
    assert record(broken, draw((1, 2, 4, 4), 9), sigmas).read_gram() is None
    recorder = Recorder(sigmas)
    recorder.note(0, velocities[0], velocities[1])
    with pytest.raises(ValueError, match="step 2"):
        recorder.note(2, velocities[0], velocities[1])


def bending(at: int, seed: int) -> torch.Tensor:
    """Products of a run whose velocity turns around one step, and changes a little all the time: where it
    did not, many choices would cost the same, and rounding would choose.
    """
    a, b, c, start = (draw((1, 2, 4, 4), 4 * seed + i) for i in range(4))
    velocities = [
        a + (1 + 0.1 * seed) * math.tanh((i - at) / 1.5) * b + 0.05 * math.sin(i / 4) * c
        for i in range(STEPS)
    ]
    gram = record(velocities, start, KIND.sigmas).read_gram()
    assert gram is not None
    return gram


def taught(at: int, prompts: int = 4) -> Lessons:
    lessons = Lessons(KIND)
    for i in range(prompts):
        lessons = lessons.add(f"{i:04x}", bending(at, i))
    return lessons


def test_four_prompts_that_bend_late_choose_steps_there_and_runs_go_by_them() -> None:
    lessons = taught(21)
    assert lessons.due
    lessons = choose_steps(lessons)
    wins = [one for one in lessons.tried if one.wins]
    assert wins, lessons.describe()
    table = wins[0].table
    assert max(table.errors) <= max(table.rule_errors) and table.learned_from == 4
    run = RunFacts(
        KIND.sigmas,
        solver=euler_solver(KIND.sigmas),
        regular=True,
        fingerprint=MODEL,
        tables=lessons.tables,
    )
    masks = {make_plan(Acceleration(level), run).mask for level in learning.LEVELS}
    assert "mask: learned from 4 of your own uncached runs (28 steps, guidance 4)" in masks
    assert "so these steps are used." in lessons.describe()


def test_steps_that_end_nearer_but_stray_on_the_way_are_not_believed() -> None:
    chosen = choose_steps(taught(21)).tried[0]
    assert chosen.wins and not replace(chosen, steady=False).wins
    mine, ruled = torch.tensor([[0.1, 0.3, 0.1]]), torch.tensor([[0.1, 0.2, 0.2]])
    assert not learning.is_steady(mine, ruled) and learning.is_steady(ruled, ruled)


def test_where_the_rule_is_best_that_is_what_is_told() -> None:
    lessons = Lessons(KIND)
    velocities = [draw((1, 2, 4, 4), 1)] * STEPS
    for i in range(4):
        lessons = lessons.add(f"{i:04x}", record(velocities, draw((1, 2, 4, 4), i), KIND.sigmas).read_gram())
    lessons = choose_steps(lessons)
    assert lessons.tables == ()
    assert "11 of 28 steps: nothing better than the rule was found in 4 runs." in lessons.describe()


def test_a_prompt_teaches_once_and_the_oldest_go_first() -> None:
    lessons = taught(9, 1)
    assert lessons.add("0000", bending(9, 5)) is lessons and not lessons.due
    lessons = taught(9, learning.MOST_PROMPTS + 2)
    assert lessons.seen == learning.MOST_PROMPTS + 2
    assert list(lessons.grams) == [f"{i:04x}" for i in range(2, learning.MOST_PROMPTS + 2)]


def test_what_is_written_is_read_again_and_damage_is_an_error() -> None:
    lessons = choose_steps(taught(21))
    data = json.loads(json.dumps(lessons.data()))
    again = read_lessons(data)
    assert again.kind == lessons.kind and again.tried == lessons.tried and again.seen == lessons.seen
    for prompt, gram in lessons.grams.items():
        torch.testing.assert_close(again.grams[prompt], gram, rtol=1e-8, atol=1e-8)
    assert len(json.dumps(data)) < 60_000
    damaged = [{}, [], {**data, "version": 9}, {**data, "sigmas": [1.0]}, {**data, "grams": {"a": [1.0]}}]
    damaged += [{**data, "grams": {"a": [math.nan] * 435}}, {**data, "tried": [{}]}, {**data, "seen": None}]
    for one in damaged:
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            read_lessons(one)


def test_prompts_are_told_apart_by_a_number_too_short_to_find_them_by() -> None:
    one, other = ([[draw((1, 6, 8), seed), {}]] for seed in (1, 2))
    assert learning.name_prompt(one, "salt") == learning.name_prompt(one, "salt")
    assert learning.name_prompt(one, "salt") != learning.name_prompt(other, "salt")
    assert learning.name_prompt(one, "salt") != learning.name_prompt(one, "pepper")
    assert len(learning.name_prompt(one, "salt")) == 4


def test_what_klein_calibrate_fitted_comes_first() -> None:
    calls = (0, 2, 4)
    levels = tuple(native_sigmas(6))
    weights = (((1.0,),),) * 3
    levels3 = (levels[0], levels[2], levels[4], 0.0)
    fitted = FittedTable(SKIPPED, MODEL, 4.0, levels, calls, levels3, weights, (0.1,), (0.2,))
    learned = replace(fitted, errors=(0.01,), learned_from=4)
    assert find_table((learned, fitted), SKIPPED, levels, 4.0, 3) is fitted
