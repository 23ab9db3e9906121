"""Guidance reuse on numbers that are known exactly."""

from __future__ import annotations

import torch
from kleinod_pure.acceleration.policies.guidance import CUT, DELTA, FIRST_STEP, FULL, GuidanceReuse
from kleinod_pure.acceleration.policies.policy import RunFacts, Step
from kleinod_pure.base.values import Acceleration

STEPS = 12
SIGMAS = [1 - 0.05 * i for i in range(STEPS)]


def make(**settings: int) -> GuidanceReuse:
    return GuidanceReuse(Acceleration("none", **settings), RunFacts((*SIGMAS, 0.0)))


def share(reuse: GuidanceReuse) -> float:
    x = torch.zeros(1)
    return reuse.end_step(x, x).work


def branches(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Denoised pictures of both branches whose difference, as a velocity, is a line over sigma."""
    generator = torch.Generator().manual_seed(0)
    base, slope = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    conditional = torch.sin(10 * sigma * base)
    return conditional, conditional + sigma * (base + sigma * slope)


def test_a_difference_that_is_a_line_over_sigma_is_made_up_exactly() -> None:
    reuse = make(guidance_interval=3)
    modes = []
    for index, sigma in enumerate(SIGMAS):
        reuse.begin_step(Step(index, sigma))
        modes.append(reuse.mode)
        conditional, unconditional = branches(sigma)
        if reuse.mode == FULL:
            reuse.learn_branches(conditional, unconditional)
            assert share(reuse) == 1
        else:
            made = reuse.make_up_branch(conditional)
            torch.testing.assert_close(made, unconditional, rtol=1e-4, atol=1e-4)
            assert share(reuse) == 0.5
    assert modes == [FULL] * 4 + [DELTA, DELTA, FULL, DELTA, DELTA, FULL, DELTA, DELTA]


def test_the_cut_gives_the_prompt_alone_and_is_announced_once() -> None:
    reuse = make(guidance_end_percentage=50)
    announced = []
    for index, sigma in enumerate(SIGMAS):
        announced.append(reuse.breaks_path(index))
        reuse.begin_step(Step(index, sigma))
        conditional, unconditional = branches(sigma)
        if index < 6:
            assert reuse.mode == FULL
            reuse.learn_branches(conditional, unconditional)
        else:
            assert reuse.mode == CUT
            made = reuse.make_up_branch(conditional)
            assert torch.equal(made, conditional) and made is not conditional
    assert announced == [index == 6 for index in range(STEPS)]


def test_a_step_off_the_schedule_and_a_forgotten_past_run_both_branches() -> None:
    reuse = make(guidance_interval=5)
    reuse.begin_step(Step(FIRST_STEP, 0.9))
    reuse.learn_branches(*branches(0.9))
    reuse.begin_step(Step(None, 0.85))
    assert reuse.mode == FULL
    reuse.begin_step(Step(FIRST_STEP + 1, 0.8))
    assert reuse.mode == DELTA
    reuse.forget()
    reuse.begin_step(Step(FIRST_STEP + 2, 0.7))
    assert reuse.mode == FULL
