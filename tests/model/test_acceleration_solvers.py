"""Every sampler name of ComfyUI with every kind of cache: skipped rightly, or left alone to the last bit."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from kleinod.nodes.acceleration import patch
from kleinod.nodes.acceleration.patch import accelerate, computes_roughly
from kleinod.nodes.acceleration.solvers import ALONG_A_PATH, has_noise_path
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.sampling.schedule import native_sigmas

from tests.model.acceleration_rig import (
    EVERY,
    BlockCounter,
    near,
    noise,
    plain,
    relative_error,
    run,
    sample,
    with_short_text,
    work_of,
)
from tests.model.tiny_klein import load_tiny_model, random_conditioning

STEPS = 10
SIGMAS = native_sigmas(STEPS, 2.05)
# A slow stretch of a run, on which block caches have something to reuse even with random weights.
SLOW = near(STEPS, start=0.8, width=0.001)
BLOCKS = 3
KINDS = ("forecast", "first_block", "guidance")


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model(double=1, single=2))


@pytest.fixture
def counter(model: Any):
    watching = BlockCounter.watch(model)
    yield watching
    watching.close()


def test_the_precision_is_the_network_s_not_its_weights(model: Any) -> None:
    forced = {dtype: model.clone() for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    for dtype, clone in forced.items():
        clone.set_model_compute_dtype(dtype)
        assert computes_roughly(clone) == (dtype != torch.float32)


def short_noise() -> torch.Tensor:
    return noise(size=3)


def asked_for(model: Any, solver: str) -> list[float]:
    """The sigmas at which a solver really calls the model."""
    asked: list[float] = []

    def note(executor: Any, x: Any, timestep: Any, *rest: Any) -> torch.Tensor:
        asked.append(float(timestep.flatten()[0]))
        return executor(x, timestep, *rest)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "note", note)
    sample(watched, SLOW, solver, start=short_noise())
    return asked


@pytest.mark.parametrize("solver", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler(model: Any, counter: BlockCounter, solver: str) -> None:
    """One call at each sigma: work is saved, and as much as the report says. Otherwise: not one bit may
    differ.
    """
    asked = asked_for(model, solver)
    spacing = float(SLOW[0] - SLOW[1])
    regular = len(asked) == STEPS and all(
        abs(a - b) < spacing / 4 for a, b in zip(asked, SLOW[:-1].tolist(), strict=True)
    )
    wanted = plain(model, SLOW, sampler=solver, start=short_noise())
    for kind in KINDS:
        counter.reset()
        got, report = run(model, EVERY[kind], SLOW, sampler=solver, start=short_noise())
        assert torch.isfinite(got).all()
        assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS)), report.line()
        if regular and not (kind == "forecast" and solver.endswith("_cfg_pp")):
            # lcm draws the whole picture's noise anew at every step: no block is like the last time.
            fresh = kind == "first_block" and solver == "lcm"
            assert fresh or counter.total < 0.9 * STEPS * 2 * BLOCKS, report.line()
        else:
            assert counter.total == len(asked) * 2 * BLOCKS, report.line()
            assert torch.equal(got, wanted)
            assert "every step was computed" in report.line()


@pytest.mark.parametrize(
    ("solver", "one_path"),
    [
        *((name, True) for name in sorted(ALONG_A_PATH)),
        ("sample_euler_ancestral", False),
        ("sample_ddpm", False),
    ],
)
def test_solvers_with_one_noise_path_are_known(model: Any, solver: str, one_path: bool) -> None:
    """By what they do: from nothing but their noise, more steps lead to nearly the same."""
    flow = model.clone()
    flow.set_model_unet_function_wrapper(lambda apply, args: 0.5 * args["input"])
    sampler = comfy.samplers.sampler_object(solver.removeprefix("sample_"))
    few, many = (
        sample(flow, torch.linspace(0.9, 0.3, steps + 1), sampler, start=torch.zeros(1, 128, 6, 6)).flatten()
        for steps in (6, 9)
    )
    assert (torch.corrcoef(torch.stack([few, many]))[0, 1] > 0.8) == one_path == has_noise_path(sampler)


def test_fewer_steps_are_the_plain_run_of_them(
    model: Any, counter: BlockCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a model that is no Klein: the given schedule in fewer steps; the next run is whole again."""
    monkeypatch.setattr(patch, "count_blocks", lambda network: (0, 0))
    levels = torch.tensor([*(0.9 * 0.95**step for step in range(12)), 0.0])
    told: list[Any] = []
    fast = accelerate(model, Acceleration("medium"), told.append)
    got = sample(fast, levels, "dpmpp_2m_sde", start=short_noise())
    assert counter.total == 6 * 2 * BLOCKS
    assert torch.equal(got, sample(model, levels[::2], "dpmpp_2m_sde", start=short_noise()))
    (report,) = told
    assert (report.asked, report.steps, report.pattern) == (12, 6, "CCCCCC")
    assert "6 plain steps in the place of 12" in report.line() and report.method == "fewer steps"
    sample(fast, levels, "euler", start=short_noise())
    assert told[1].asked == 12 and len(told[1].records) == 12 and "R" in told[1].pattern


def test_the_packs_own_solver_and_schedule(model: Any, counter: BlockCounter) -> None:
    from kleinod.nodes.sampling.fast import sample_fast
    from kleinod.nodes.sampling.schedule import fast_sigmas

    sigmas = fast_sigmas(STEPS, 2.05)
    sampler = comfy.samplers.KSAMPLER(sample_fast)
    for kind in KINDS:
        counter.reset()
        got, report = run(model, EVERY[kind], sigmas, sampler=sampler)
        assert torch.isfinite(got).all()
        assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))
        if kind != "first_block":
            assert counter.total < 0.9 * STEPS * 2 * BLOCKS, report.line()


# --- solvers nobody has told us about


def repeated(model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None, **_: Any) -> Any:
    """LanPaint's way: several calls at one sigma, each on another x, before the step is made."""
    rows = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        for _ in range(3):
            denoised = model(x, sigmas[i] * rows, **extra_args)
            x = x + 0.01 * (denoised - x)
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def late(model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None, **_: Any) -> Any:
    """Euler in the beginning, a second call a step from the middle on."""
    rows = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * rows, **extra_args)
        if i >= len(sigmas) // 2:
            denoised = model(x + 0.01 * denoised, sigmas[i] * rows, **extra_args)
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def restarted(model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None, **_: Any) -> Any:
    """Restart sampling: half way, back to a noisier sigma with new noise."""
    rows = x.new_ones([x.shape[0]])
    generator = torch.Generator().manual_seed(1)
    order = [*range(6), *range(3, len(sigmas) - 1)]
    for k, i in enumerate(order):
        if k and i < order[k - 1]:
            x = x + torch.randn(x.shape, generator=generator) * float(sigmas[i] - sigmas[order[k - 1]])
        denoised = model(x, sigmas[i] * rows, **extra_args)
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_calls_are_computed(model: Any, kind: str) -> None:
    sampler = comfy.samplers.KSAMPLER(repeated)
    got, report = run(model, EVERY[kind], SIGMAS, sampler=sampler)
    assert torch.equal(got, plain(model, SIGMAS, sampler=sampler))
    assert set(report.pattern) == {"C"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [late, restarted])
def test_solvers_that_turn_odd_half_way(model: Any, counter: BlockCounter, kind: str, function: Any) -> None:
    """From the first odd call on every call is computed, from what the network itself says."""
    sampler = comfy.samplers.KSAMPLER(function)
    got, report = run(model, EVERY[kind], SLOW, sampler=sampler)
    assert torch.isfinite(got).all()
    odd = next(i for i, record in enumerate(report.records) if record.step is None)
    assert set(report.pattern[odd:]) == {"C"}
    assert set(report.pattern[:odd]) != {"C"}
    assert f"from call {odd + 1} on every step was computed" in report.line()
    assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_that_stands_still(model: Any, kind: str) -> None:
    """Two equal sigmas: a step of no width, in which no past error can be settled."""
    sigmas = torch.cat((SIGMAS[:8], SIGMAS[7:]))
    got, report = run(model, EVERY[kind], sigmas)
    assert torch.isfinite(got).all()
    assert report.pattern[8:] == "C" * (len(sigmas) - 9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_that_climbs(model: Any, counter: BlockCounter, kind: str) -> None:
    """Unsampling: from the picture to the noise."""
    sigmas = near().flip(0)
    wanted = plain(model, sigmas)
    counter.reset()
    got, report = run(model, EVERY[kind], sigmas)
    assert relative_error(got, wanted) < 2e-2
    assert work_of(report) == pytest.approx(counter.total / (2 * BLOCKS))
    assert counter.total < 0.9 * 12 * 2 * BLOCKS
    whole = SIGMAS.flip(0)[1:]
    assert torch.isfinite(sample(accelerate(model, EVERY[kind]), whole)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_churn_adds_noise_to_every_step(model: Any, kind: str) -> None:
    """Euler with churn asks for sigmas of its own."""
    sampler = comfy.samplers.ksampler("euler", {"s_churn": 5.0})
    torch.manual_seed(1)
    wanted = plain(model, SIGMAS, sampler=sampler)
    torch.manual_seed(1)
    assert torch.equal(run(model, EVERY[kind], SIGMAS, sampler=sampler)[0], wanted)


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_scheduler_of_the_plain_ksampler(model: Any, counter: BlockCounter, scheduler: str) -> None:
    told: list[Any] = []
    fast = accelerate(model, EVERY["forecast"], told.append)
    sampler = comfy.samplers.KSampler(fast, 12, "cpu", "euler", scheduler, 1.0)
    start = short_noise()
    texts = random_conditioning(1), random_conditioning(2)
    result = sampler.sample(
        start, *texts, 4.0, latent_image=torch.zeros_like(start), disable_pbar=True, seed=3
    )
    assert torch.isfinite(result).all()
    assert counter.total == told[-1].computed * 2 * BLOCKS
    assert told[-1].speed > 1.5, told[-1].line()


def test_ksampler_advanced_in_two_parts(model: Any, counter: BlockCounter) -> None:
    """Start and end steps with leftover noise: two runs, each with its own steps, no history in between."""
    from nodes import common_ksampler

    def both(used: Any) -> torch.Tensor:
        latent = {"samples": torch.zeros(1, 128, 3, 3), "downscale_ratio_spacial": 16}
        texts = (random_conditioning(1), random_conditioning(2))
        (half,) = common_ksampler(
            used, 7, 24, 4.0, "euler", "simple", *texts, latent, start_step=0, last_step=12
        )
        (done,) = common_ksampler(
            used,
            7,
            24,
            4.0,
            "euler",
            "simple",
            *texts,
            half,
            disable_noise=True,
            start_step=12,
            last_step=1000,
            force_full_denoise=True,
        )
        return done["samples"]

    told: list[Any] = []
    both(accelerate(model, EVERY["forecast"], told.append))
    assert [report.steps for report in told] == [12, 12]
    for report in told:
        assert report.pattern.startswith("C") and "R" in report.pattern
    assert counter.total == sum(report.computed for report in told) * 2 * BLOCKS
    told.clear()
    assert torch.equal(both(accelerate(model, EVERY["exact"], told.append)), both(model))


def test_a_mask_is_kept_whatever_the_cache(model: Any) -> None:
    latent = noise(seed=6)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :3] = 1
    sigmas = near()
    wanted = sample(model, sigmas, latent=latent, mask=mask)

    def inside(result: torch.Tensor) -> torch.Tensor:
        began = sigmas[0] * noise() + (1 - sigmas[0]) * latent
        return (result * (1 - sigmas[-1]) - began)[..., :3]

    for kind in KINDS:
        got = sample(accelerate(model, EVERY[kind]), sigmas, latent=latent, mask=mask)
        assert torch.equal(got[..., 3:], wanted[..., 3:])
        assert relative_error(inside(got), inside(wanted)) < 2e-2
