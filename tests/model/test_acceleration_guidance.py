"""Guidance reuse and late cut inside ComfyUI: the negative prompt's branch really rests, and comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kleinod.nodes.acceleration.policies.guidance import FIRST_STEP as HEAD
from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration
from kleinod.nodes.sampling.schedule import native_sigmas

from tests.model.acceleration_rig import (
    BLOCKS,
    BlockCounter,
    memory_short_from,
    moved,
    near,
    noise,
    percent_before,
    plain,
    relative_error,
    run,
    sample,
    with_short_text,
    work_of,
)
from tests.model.tiny_klein import load_tiny_model, random_conditioning

STEPS = 12
SIGMAS = native_sigmas(STEPS, 2.05)


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model())


@pytest.fixture
def counter(model: Any):
    watching = BlockCounter.watch(model)
    yield watching
    watching.close()


def spare(interval: int = 1, end: int = 100, **settings: Any) -> Acceleration:
    return Acceleration(
        settings.pop("acceleration", "none"),
        guidance_interval=interval,
        guidance_end_percentage=end,
        forecast_error_limit=10.0,
        **settings,
    )


@pytest.mark.parametrize("interval, pattern", [(2, "CCCCHCHCHCHC"), (3, "CCCCHHCHHCHH")])
def test_between_full_steps_only_the_prompts_branch_runs(
    model: Any, counter: BlockCounter, interval: int, pattern: str
) -> None:
    sigmas = near()
    wanted = plain(model, sigmas)
    counter.reset()
    got, report = run(model, spare(interval), sigmas)
    assert report.pattern == pattern
    assert counter.total == BLOCKS * (2 * pattern.count("C") + pattern.count("H"))
    assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))
    assert relative_error(got, wanted) < 1e-3


def test_a_late_cut_is_guidance_1_from_there_on(model: Any, counter: BlockCounter) -> None:
    """Bit for bit what core's CFG Override does there."""
    from comfy_extras.nodes_custom_sampler import CFGOverride

    end = 9
    percent = percent_before(model, SIGMAS, end)
    wanted = plain(CFGOverride.execute(model, 1.0, percent, 1.0)[0], SIGMAS)
    counter.reset()
    got, report = run(model, spare(end=75), SIGMAS)
    assert report.pattern == "C" * end + "H" * (STEPS - end)
    assert counter.total == BLOCKS * (2 * end + STEPS - end)
    assert torch.equal(got, wanted)


def test_with_the_forecast(model: Any, counter: BlockCounter) -> None:
    sigmas = near(20)
    wanted = plain(model, sigmas)
    counter.reset()
    got, report = run(model, spare(2, acceleration="medium"), sigmas)
    kinds = {kind: report.pattern.count(kind) for kind in "CHR"}
    assert kinds["H"] >= 2 and kinds["R"] >= 4, report.line()
    assert counter.total == BLOCKS * (2 * kinds["C"] + kinds["H"])
    assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))
    assert relative_error(got, wanted) < 2e-3


def test_the_forecast_draws_no_line_across_the_cut(model: Any) -> None:
    """The velocity jumps where guidance ends; a forecast from both sides of it would be nonsense."""
    sigmas = near(20)
    got, report = run(model, spare(end=60, acceleration="high"), sigmas)
    cut = 12
    assert "R" in report.pattern[:cut] and "R" in report.pattern[cut:]
    assert report.pattern[cut] == "H"
    middle = sample(model, sigmas[: cut + 1])
    end = sample(model, sigmas[cut:], cfg=1.0, start=torch.zeros_like(middle), latent=middle)
    assert relative_error(got, moved(end, sigmas)) < 2e-3


def test_with_a_block_cache(model: Any, counter: BlockCounter) -> None:
    sigmas = near(16)
    wanted = plain(model, sigmas)
    counter.reset()
    setting = spare(
        2,
        fb_cache=True,
        fb_cache_threshold=1.0,
        threshold_meaning=HIGHER_REUSES_MORE,
        cache_start_step_percentage=20,
    )
    got, report = run(model, setting, sigmas)
    halved_and_reused = [r for r in report.records if r.work == pytest.approx(0.5 / BLOCKS)]
    assert halved_and_reused, "a step may do both: one branch, and of it one block"
    assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))
    assert counter.total < 0.7 * 16 * 2 * BLOCKS
    assert relative_error(got, wanted) < 2e-2


def test_one_call_or_two_makes_no_difference(model: Any) -> None:
    sigmas = near()
    together, _ = run(model, spare(2), sigmas)
    with memory_short_from(model, 5) as callback:
        apart, _ = run(model, spare(2), sigmas, callback=callback)
    assert relative_error(apart, together) < 1e-4


def test_a_batch_is_its_pictures_one_by_one(model: Any) -> None:
    sigmas, start = near(), noise(batch=2, seed=4)
    both, _ = run(model, spare(2), sigmas, start=start)
    for i in range(2):
        alone, _ = run(model, spare(2), sigmas, start=start[i : i + 1])
        assert relative_error(both[i : i + 1], alone) < 1e-4


def test_without_guidance_there_is_nothing_to_spare(model: Any) -> None:
    got, report = run(model, spare(2, end=50), SIGMAS, cfg=1.0)
    assert torch.equal(got, plain(model, SIGMAS, cfg=1.0))
    assert "no guidance was spared" in report.line()


def test_changed_guidance_asks_for_a_fresh_difference(model: Any) -> None:
    from comfy_extras.nodes_custom_sampler import CFGOverride

    change = 6
    percent = percent_before(model, SIGMAS, change)
    _, report = run(CFGOverride.execute(model, 2.0, percent, 1.0)[0], spare(5), SIGMAS)
    assert report.pattern[HEAD:change] == "HH"
    assert report.pattern[change] == "C"


def test_other_guiders_are_left_alone(model: Any) -> None:
    """Dual guidance has three branches; sparing one of two would mix them up."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG
    from kleinod.nodes.acceleration.patch import accelerate

    told: list[Any] = []
    results = []
    for used in (model, accelerate(model, spare(2, end=60), told.append)):
        guider = Guider_DualCFG(used)
        guider.set_conds(random_conditioning(1), random_conditioning(5), random_conditioning(2))
        guider.set_cfg(3.0, 2.0)
        results.append(
            guider.sample(noise(), torch.zeros_like(noise()), _euler(), SIGMAS, disable_pbar=True, seed=3)
        )
    assert torch.equal(*results)
    assert "plain CFG guider" in told[-1].line()


def _euler() -> Any:
    import comfy.samplers

    return comfy.samplers.sampler_object("euler")
