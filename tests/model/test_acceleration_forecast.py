"""The forecast inside ComfyUI, on a random klein: real block executions are counted, tensors compared."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.samplers
import pytest
import torch
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.acceleration.policies.forecast import plan_usual_run
from kleinod.nodes.acceleration.report import RunReport
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.sampling.schedule import native_sigmas

from tests.model.acceleration_rig import (
    BlockCounter,
    memory_short_from,
    moved,
    near,
    noise,
    relative_error,
    sample,
    with_references,
    with_short_text,
)
from tests.model.tiny_klein import load_tiny_model, random_conditioning

STEPS = 12
BLOCKS = 2
SIGMAS = native_sigmas(STEPS, 2.05)


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model(double=1, single=1))


@pytest.fixture
def counter(model: Any):
    watching = BlockCounter.watch(model)
    yield watching
    watching.close()


def bold(level: str = "high", **settings: Any) -> Acceleration:
    """Random weights forecast badly, so the guard is out of the way here."""
    return Acceleration(level, forecast_error_limit=10.0, **settings)


class Told(list):
    """Reports of the runs of one accelerated model."""

    @property
    def last(self) -> RunReport:
        return self[-1]


# --- identity


@pytest.mark.parametrize(
    "value",
    [
        None,
        Acceleration("none"),
        Acceleration(fb_cache=True, fb_cache_threshold=0.0),
        Acceleration(tea_cache=True, tea_cache_distance=0.0),
        Acceleration(db_cache=True, db_cache_threshold=0.0),
        Acceleration(speed=1.0),
    ],
)
def test_off_returns_the_very_model(model: Any, value: Acceleration | None) -> None:
    assert accelerate(model, value) is model


def test_with_nothing_to_skip_every_bit_is_the_same(model: Any) -> None:
    plain = sample(model, SIGMAS)
    last_only = bold(cache_start_step=STEPS - 1, cache_end_step=STEPS)
    told = Told()
    assert torch.equal(sample(accelerate(model, last_only, told.append), SIGMAS), plain)
    assert told.last.pattern == "C" * STEPS


def test_the_given_model_is_left_alone(model: Any) -> None:
    before = {kind: dict(keys) for kind, keys in model.wrappers.items()}
    plain = sample(model, SIGMAS)
    fast = accelerate(model, bold())
    assert not torch.equal(sample(fast, SIGMAS), plain)
    assert {kind: dict(keys) for kind, keys in model.wrappers.items()} == before
    assert torch.equal(sample(model, SIGMAS), plain), "the node was removed, so must be its effect"


def test_applied_twice_the_last_one_holds(model: Any) -> None:
    twice, once = Told(), Told()
    fast = accelerate(accelerate(model, bold("low"), twice.append), bold("high"), once.append)
    sample(fast, SIGMAS)
    assert not twice and len(once) == 1
    assert once.last.computed == STEPS - sum(plan_usual_run(bold("high"), STEPS).reuse)


# --- counting


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_blocks_run_as_often_as_the_report_says(model: Any, counter: BlockCounter, level: str) -> None:
    told = Told()
    sample(accelerate(model, bold(level), told.append), SIGMAS)
    computed = STEPS - sum(plan_usual_run(bold(level), STEPS).reuse)
    assert counter.total == computed * BLOCKS * 2, "two branches, every block, computed steps only"
    assert told.last.computed == computed
    assert told.last.data()["speed"] == pytest.approx(STEPS / computed)


def test_guidance_1_runs_one_branch(model: Any, counter: BlockCounter) -> None:
    told = Told()
    sample(accelerate(model, bold(), told.append), SIGMAS, cfg=1.0)
    assert counter.total == told.last.computed * BLOCKS


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_short_runs_are_the_plain_runs(model: Any, counter: BlockCounter, steps: int) -> None:
    sigmas = native_sigmas(steps, 2.05)
    plain = sample(model, sigmas)
    counter.reset()
    assert torch.equal(sample(accelerate(model, bold()), sigmas), plain)
    assert counter.total == steps * BLOCKS * 2


def test_steps_close_together_are_nearly_exact(model: Any) -> None:
    sigmas = near()
    plain = moved(sample(model, sigmas), sigmas)
    assert relative_error(moved(sample(accelerate(model, bold()), sigmas), sigmas), plain) < 2e-3


# --- runs do not touch each other


def test_every_run_starts_anew(model: Any) -> None:
    told = Told()
    fast = accelerate(model, bold(), told.append)
    first = sample(fast, SIGMAS)
    other = sample(fast, native_sigmas(10, 2.05), start=noise(size=4, seed=5))
    again = sample(fast, SIGMAS)
    assert torch.equal(first, again)
    assert other.shape[-1] == 4
    assert [report.steps for report in told] == [STEPS, 10, STEPS]
    assert told[0].pattern == told[2].pattern


def test_two_samplers_of_one_model_interleaved(model: Any) -> None:
    """The second run begins and ends while the first is half way, as a node inside a callback would do."""
    fast = accelerate(model, bold())
    alone = sample(fast, SIGMAS)
    inner_alone = sample(fast, SIGMAS, start=noise(seed=9))
    inner: list[torch.Tensor] = []

    def other_run(step: int, *rest: Any) -> None:
        if step == 6:
            network_patcher = model.model.current_patcher
            inner.append(sample(fast, SIGMAS, start=noise(seed=9)))
            model.model.current_patcher = network_patcher

    outer = sample(fast, SIGMAS, callback=other_run)
    assert torch.equal(outer, alone)
    assert torch.equal(inner[0], inner_alone)


def test_interrupted_and_run_again(model: Any) -> None:
    fast = accelerate(model, bold())
    whole = sample(fast, SIGMAS)

    def stop(step: int, *rest: Any) -> None:
        if step == 8:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(fast, SIGMAS, callback=stop)
    assert torch.equal(sample(fast, SIGMAS), whole)


def test_the_stop_button_works_on_skipped_steps(model: Any) -> None:
    pattern = plan_usual_run(bold(), STEPS).reuse
    before_a_skip = next(i for i in range(STEPS - 1) if pattern[i + 1])

    def press(step: int, *rest: Any) -> None:
        if step == before_a_skip:
            comfy.model_management.interrupt_current_processing()

    seen: list[int] = []

    def on_step(step: int, *rest: Any) -> None:
        seen.append(step)
        press(step)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(accelerate(model, bold()), SIGMAS, callback=on_step)
    assert seen[-1] == before_a_skip
    comfy.model_management.interrupt_current_processing(False)


# --- shapes and guidance


def test_a_batch_is_its_pictures_one_by_one(model: Any) -> None:
    sigmas = near()
    fast = accelerate(model, bold())
    start = noise(batch=2, seed=4)
    both = moved(sample(fast, sigmas, start=start), sigmas, start)
    for i in range(2):
        one = start[i : i + 1]
        alone = moved(sample(fast, sigmas, start=one), sigmas, one)
        assert relative_error(both[i : i + 1], alone) < 1e-4


@pytest.mark.parametrize("at", [0, 5, 9])
def test_batching_of_branches_may_change_during_the_run(model: Any, counter: BlockCounter, at: int) -> None:
    sigmas = near()
    fast = accelerate(model, bold())
    batched = moved(sample(fast, sigmas), sigmas)
    rows = counter.total
    counter.reset()
    with memory_short_from(model, at) as callback:
        split = moved(sample(fast, sigmas, callback=callback), sigmas)
    assert counter.total == rows
    assert relative_error(split, batched) < 1e-4


@pytest.mark.parametrize("tokens", [24, 600])
def test_prompts_of_different_length(model: Any, tokens: int) -> None:
    """Branches of unequal length never share a call of the network."""
    sigmas = near()
    texts = {"positive": random_conditioning(1, tokens=tokens), "negative": random_conditioning(2, tokens=12)}
    plain = moved(sample(model, sigmas, **texts), sigmas)
    fast = moved(sample(accelerate(model, bold()), sigmas, **texts), sigmas)
    assert relative_error(fast, plain) < 2e-3


@pytest.mark.parametrize("sides", [(True, True), (True, False)])
def test_references_on_both_sides_or_one(model: Any, sides: tuple[bool, bool]) -> None:
    sigmas = near()
    reference = noise(size=4, seed=8)
    texts = {
        name: with_references(random_conditioning(i), [reference]) if side else random_conditioning(i)
        for i, (name, side) in enumerate(zip(("positive", "negative"), sides, strict=True))
    }
    plain = moved(sample(model, sigmas, **texts), sigmas)
    fast = moved(sample(accelerate(model, bold()), sigmas, **texts), sigmas)
    assert relative_error(fast, plain) < 2e-3


# --- solvers

ONCE = """euler euler_ancestral ddim dpmpp_2m dpmpp_2m_sde dpmpp_3m_sde res_multistep uni_pc uni_pc_bh2 lcm
ipndm deis lms gradient_estimation er_sde sa_solver""".split()
SEVERAL = ["heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_sde", "seeds_2", "dpm_fast"]
READS_BRANCHES = ["euler_cfg_pp", "dpmpp_2m_cfg_pp"]


@pytest.mark.parametrize("solver", ONCE)
def test_solvers_with_one_call_a_step_skip(model: Any, counter: BlockCounter, solver: str) -> None:
    told = Told()
    result = sample(accelerate(model, bold(), told.append), SIGMAS, solver)
    assert torch.isfinite(result).all()
    assert told.last.pattern.count("R") >= sum(plan_usual_run(bold(), STEPS).reuse) - 1, told.last.line()
    assert counter.total == told.last.computed * BLOCKS * 2


@pytest.mark.parametrize("solver", SEVERAL)
def test_solvers_with_several_calls_a_step_are_left_alone(model: Any, solver: str) -> None:
    told = Told()
    sigmas = native_sigmas(8, 2.05)
    plain = sample(model, sigmas, solver)
    assert torch.equal(sample(accelerate(model, bold(), told.append), sigmas, solver), plain)
    assert "R" not in told.last.pattern
    assert "more than once a step" in told.last.line()


@pytest.mark.parametrize("solver", READS_BRANCHES)
def test_solvers_that_read_the_branches_are_left_alone(model: Any, solver: str) -> None:
    told = Told()
    plain = sample(model, SIGMAS, solver)
    assert torch.equal(sample(accelerate(model, bold(), told.append), SIGMAS, solver), plain)
    assert "both branches" in told.last.line()


@pytest.mark.parametrize(("solver", "settles"), [("euler_ancestral", False), ("dpmpp_2m", True)])
def test_only_solvers_that_add_no_noise_are_given_a_shifted_picture(
    model: Any, solver: str, settles: bool
) -> None:
    """A linear solver is set right at a computed step; any other gets the network's own answer there."""
    answers: SimpleQueue[torch.Tensor] = SimpleQueue()  # a list would look like state kept between steps

    def keep(args: dict[str, Any]) -> torch.Tensor:
        answers.put(args["denoised"].clone())
        return args["denoised"]

    seen: list[torch.Tensor] = []
    watched = model.clone()
    watched.set_model_sampler_post_cfg_function(keep)
    report = Told()
    sample(
        accelerate(watched, bold(), report.append),
        SIGMAS,
        solver,
        callback=lambda step, x0, x, total: seen.append(x0.clone()),
    )
    assert "R" in report.last.pattern
    computed = [x0 for x0, kind in zip(seen, report.last.pattern, strict=True) if kind == "C"]
    told = [answers.get_nowait() for _ in computed]
    assert all(torch.equal(a, b) for a, b in zip(computed, told, strict=True)) != settles


# --- parts of a run


def test_denoise_below_1_counts_its_own_steps(model: Any) -> None:
    told = Told()
    sample(accelerate(model, bold(), told.append), SIGMAS[3:], latent=noise(seed=6))
    assert told.last.steps == STEPS - 3
    expected = "".join("R" if skipped else "C" for skipped in plan_usual_run(bold(), STEPS - 3).reuse)
    assert told.last.pattern == expected


def test_split_sigmas_do_not_share_history(model: Any, counter: BlockCounter) -> None:
    fast = accelerate(model, bold())
    start = noise()
    middle = sample(fast, SIGMAS[:4], start=start)
    counter.reset()
    told = Told()
    again = accelerate(model, bold(), told.append)
    sample(again, SIGMAS[3:], start=torch.zeros_like(start), latent=middle)
    fresh = plan_usual_run(bold(), STEPS - 3)
    assert told.last.pattern[0] == "C" and told.last.computed == fresh.computed
    assert counter.total == told.last.computed * BLOCKS * 2


def test_a_mask_keeps_the_rest_untouched(model: Any) -> None:
    latent = noise(seed=6)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :3] = 1
    result = sample(accelerate(model, bold()), SIGMAS, latent=latent, mask=mask)
    torch.testing.assert_close(result[..., 3:], latent[..., 3:], rtol=0, atol=1e-5)
    assert relative_error(result[..., :3], latent[..., :3]) > 0.1


def test_guidance_changed_by_another_node_is_noticed(model: Any) -> None:
    """Core's CFG Override sets guidance per step in a wrapper that may sit outside or inside of ours."""
    from comfy_extras.nodes_custom_sampler import CFGOverride

    change = 6
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    percent = next(p / 1000 for p in range(1000) if to_sigma(p / 1000) < float(SIGMAS[change]) + 1e-4)
    for outside in (True, False):
        told = Told()
        if outside:
            fast = accelerate(CFGOverride.execute(model, 1.0, percent, 1.0)[0], bold(), told.append)
        else:
            fast = CFGOverride.execute(accelerate(model, bold(), told.append), 1.0, percent, 1.0)[0]
        sample(fast, SIGMAS)
        notes = [record.note for record in told.last.records]
        assert notes.index("conditions changed") in (change, change + 1)
        assert told.last.pattern[notes.index("conditions changed")] == "C"


def test_a_condition_that_starts_later_forgets_the_past(model: Any) -> None:
    early, late = random_conditioning(1), random_conditioning(5)
    early[0][1].update(start_percent=0.0, end_percent=0.5)
    late[0][1].update(start_percent=0.5, end_percent=1.0)
    told = Told()
    sample(accelerate(model, bold(), told.append), SIGMAS, positive=early + late)
    at = [i for i, record in enumerate(told.last.records) if record.note == "conditions changed"]
    assert len(at) == 1
    first = told.last.records[at[0]]
    assert first.kind == "C" and first.error is None, "computed, and held against nothing from before"


def test_a_hook_keyframe_forgets_the_past(model: Any) -> None:
    weight = "diffusion_model.single_blocks.0.linear2.weight"
    change = torch.randn_like(model.model.state_dict()[weight]) * 0.05
    hooks = comfy.hooks.create_hook_model_as_lora({weight: change}, None, 1.0, 0.0)
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0))
    frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.4))
    hooks.set_keyframes_on_hooks(frames)
    positive = comfy.hooks.set_hooks_for_conditioning(random_conditioning(1), hooks)
    negative = comfy.hooks.set_hooks_for_conditioning(random_conditioning(2), hooks)
    told = Told()
    hooked = model.clone()
    result = sample(accelerate(hooked, bold(), told.append), SIGMAS, positive=positive, negative=negative)
    assert torch.isfinite(result).all()
    at = [i for i, record in enumerate(told.last.records) if record.note == "conditions changed"]
    assert len(at) == 1 and told.last.pattern[at[0]] == "C"


def test_not_a_number_is_computed_and_forgotten(model: Any) -> None:
    told = Told()
    spoilt = 5

    def spoil(args: dict[str, Any]) -> torch.Tensor:
        wrong = abs(float(args["sigma"][0]) - float(SIGMAS[spoilt])) < 1e-6
        return args["denoised"] * float("nan") if wrong else args["denoised"]

    broken = model.clone()
    broken.set_model_sampler_post_cfg_function(spoil)
    window = bold(cache_start_step=spoilt + 1, cache_end_step=STEPS - 1)
    sample(accelerate(broken, window, told.append), SIGMAS)
    assert told.last.records[spoilt].note.startswith("not a finite number")
    assert told.last.pattern[spoilt : spoilt + 2] == "CC"
