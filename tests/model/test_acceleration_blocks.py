"""First block, dual block and tea inside ComfyUI: blocks really skipped, per branch, and undone
afterwards.
"""

from __future__ import annotations

from typing import Any

import comfy.controlnet
import comfy.model_management
import pytest
import torch
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.acceleration.report import RunReport
from kleinod.nodes.base.values import HIGHER_REUSES_MORE, LOWER_REUSES_MORE, Acceleration
from kleinod.nodes.sampling.schedule import native_sigmas

from tests.model.acceleration_rig import (
    BLOCKS,
    BlockCounter,
    memory_short_from,
    moved,
    near,
    noise,
    relative_error,
    run,
    sample,
    with_references,
    with_short_text,
)
from tests.model.tiny_klein import SINGLE, load_tiny_model, random_conditioning

STEPS = 12
SIGMAS = native_sigmas(STEPS, 2.05)
# Blocks that still run on a reused step.
FRONT = {"first_block": 1, "dual_block": 1, "tea": 0, "tea spectral": 0, "dual_block 2+1": 3}


def value(kind: str, dial: float = 1.0, **settings: Any) -> Acceleration:
    """An Acceleration of one block method; dial 1 reuses as much as the method can."""
    method, _, variant = kind.partition(" ")
    flags = {
        "first_block": {"fb_cache": True, "fb_cache_threshold": dial},
        "dual_block": {"db_cache": True, "db_cache_threshold": dial},
        "tea": {"tea_cache": True, "tea_cache_distance": dial},
    }[method]
    if variant == "spectral":
        flags["tea_signal"] = "spectral"
    if variant == "2+1":
        flags |= {"front_blocks": 2, "back_blocks": 1}
    base = {
        "acceleration": "none",
        "threshold_meaning": HIGHER_REUSES_MORE,
        "cache_start_step_percentage": 20,
    }
    return Acceleration(**{**base, **flags, **settings})


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model())


@pytest.fixture
def counter(model: Any):
    watching = BlockCounter.watch(model)
    yield watching
    watching.close()


def blocks_of(report: RunReport, kind: str, branches: int = 2) -> int:
    reused = report.pattern.count("R")
    return branches * ((len(report.pattern) - reused) * BLOCKS + reused * FRONT[kind])


each_kind = pytest.mark.parametrize("kind", FRONT)


@each_kind
def test_with_a_threshold_too_low_to_reuse_every_bit_is_the_same(model: Any, kind: str) -> None:
    plain = sample(model, SIGMAS)
    got, report = run(model, value(kind, dial=1e-6), SIGMAS)
    assert report.pattern == "C" * STEPS
    assert torch.equal(got, moved(plain, SIGMAS))


@each_kind
def test_reused_steps_run_the_front_blocks_only(model: Any, counter: BlockCounter, kind: str) -> None:
    sigmas = near()
    plain = moved(sample(model, sigmas), sigmas)
    counter.reset()
    got, report = run(model, value(kind), sigmas)
    assert report.pattern.count("R") >= STEPS // 3, report.line()
    assert counter.total == blocks_of(report, kind)
    assert counter.rows["double_blocks.0"] == 2 * (STEPS if FRONT[kind] else report.computed)
    assert relative_error(got, plain) < 2e-2
    assert report.speed == pytest.approx(STEPS * 2 * BLOCKS / counter.total)


@each_kind
def test_bolder_dials_reuse_more(model: Any, kind: str) -> None:
    counts = []
    for dial in (0.02, 0.2, 1.0):
        counts.append(run(model, value(kind, dial=dial), SIGMAS[:-1])[1].pattern.count("R"))
    assert counts == sorted(counts)
    setting = value(kind)
    if not setting.tea_cache:
        mirrored = value(kind, dial=0.3, threshold_meaning=LOWER_REUSES_MORE)
        same = value(kind, dial=0.7)
        assert run(model, mirrored, SIGMAS)[1].pattern == run(model, same, SIGMAS)[1].pattern


@each_kind
def test_window_and_longest_run_are_kept(model: Any, kind: str) -> None:
    window = {"cache_start_step_percentage": None, "cache_start_step": 3, "cache_end_step": 10}
    setting = value(kind, cache_max_consecutive_steps=2, **window)
    _, report = run(model, setting, near())
    assert report.pattern == "CCCRRCRRCRCC"


def test_the_dual_cache_refreshes_by_its_interval(model: Any) -> None:
    pattern = run(model, value("dual_block", db_cache_skip_interval=1), near())[1].pattern
    assert "RR" not in pattern and "RCR" in pattern


@each_kind
@pytest.mark.parametrize("at", [0, 5])
def test_branches_batched_or_not_give_the_same(model: Any, counter: BlockCounter, kind: str, at: int) -> None:
    """ComfyUI may stop batching the branches at any step, when memory runs short."""
    sigmas = near()
    batched, report = run(model, value(kind), sigmas)
    rows = counter.total
    counter.reset()
    with memory_short_from(model, at) as callback:
        split, report_split = run(model, value(kind), sigmas, callback=callback)
    assert report_split.pattern == report.pattern
    assert counter.total == rows
    assert relative_error(split, batched) < 1e-4


@each_kind
def test_branches_that_never_share_a_call(model: Any, counter: BlockCounter, kind: str) -> None:
    """A long prompt and a short one; each branch has to find its own residual."""
    sigmas = near()
    texts = {"positive": random_conditioning(1, tokens=600), "negative": random_conditioning(2, tokens=12)}
    plain = moved(sample(model, sigmas, **texts), sigmas)
    counter.reset()
    got, report = run(model, value(kind), sigmas, **texts)
    assert "R" in report.pattern
    assert counter.total == blocks_of(report, kind)
    assert relative_error(got, plain) < 2e-2


@each_kind
@pytest.mark.parametrize("sides", [(True, True), (True, False), (False, True)])
def test_references(model: Any, counter: BlockCounter, kind: str, sides: tuple[bool, bool]) -> None:
    sigmas = near()
    references = [noise(size=4, seed=8), noise(size=5, seed=9)]
    texts = {
        name: with_references(random_conditioning(i), references) if side else random_conditioning(i)
        for i, (name, side) in enumerate(zip(("positive", "negative"), sides, strict=True))
    }
    plain = moved(sample(model, sigmas, **texts), sigmas)
    counter.reset()
    got, report = run(model, value(kind), sigmas, **texts)
    assert "R" in report.pattern
    assert counter.total == blocks_of(report, kind)
    assert relative_error(got, plain) < 2e-2


@each_kind
def test_a_batch_is_its_pictures_one_by_one(model: Any, kind: str) -> None:
    sigmas, start = near(), noise(batch=2, seed=4)
    both, report = run(model, value(kind), sigmas, start=start)
    for i in range(2):
        alone, alone_report = run(model, value(kind), sigmas, start=start[i : i + 1])
        assert alone_report.pattern == report.pattern
        assert relative_error(both[i : i + 1], alone) < 1e-4


@pytest.mark.parametrize("restless", [0, 1])
def test_one_restless_branch_computes_both(model: Any, restless: int) -> None:
    """One branch changes a lot at one step, the other never: no step may reuse one and not the other.

    The branches never share a call here. Where the calm one is asked first, its decision is taken back.
    """
    sigmas, change = near(), 5
    texts = {"positive": random_conditioning(1, tokens=600), "negative": random_conditioning(2, tokens=12)}
    stirred = model.clone()

    def stir(args: dict[str, Any]) -> dict[str, Any]:
        options = args["transformer_options"]
        after = float(options["sigmas"][0]) < float(sigmas[change]) + 1e-6
        if options["cond_or_uncond"] == [restless] and after:
            args["img"] = args["img"].roll(1, dims=-1)
        return args

    stirred.set_model_patch(stir, "post_input")
    setting = value("first_block", dial=0.5, cache_max_consecutive_steps=5)
    counter = BlockCounter.watch(stirred)
    try:
        _, report = run(stirred, setting, sigmas, **texts)
    finally:
        counter.close()
    assert report.pattern[change - 1 : change + 2] == "RCR", report.pattern
    reused = report.pattern.count("R")
    wasted = counter.total - 2 * ((STEPS - reused) * BLOCKS + reused)
    # Thrown away with a decision: the calm branch's front block and all of the restless branch.
    assert wasted == {0: 0, 1: 1 + BLOCKS}[restless]


class Constant(comfy.controlnet.ControlBase):
    """The smallest ControlNet there is: the same residuals for every call."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.residual = torch.randn(1, 36, 128, generator=generator)

    def get_control(
        self, x_noisy: Any, t: Any, cond: Any, batched_number: int, transformer_options: Any
    ) -> dict:
        rows = self.residual.expand(x_noisy.shape[0], -1, -1)
        return {"input": [rows, rows], "output": [rows] * SINGLE}

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        super().pre_run(model, percent_to_timestep_function)

    def copy(self) -> Constant:
        return Constant()

    def get_models(self) -> list:
        return []


@each_kind
def test_a_control_net_counts_once(model: Any, kind: str) -> None:
    """ComfyUI adds a ControlNet's residuals outside of the blocks, also after blocks that were skipped."""
    sigmas = near()
    control = Constant()
    texts = {
        name: [[text, {**extra, "control": control, "control_apply_to_uncond": True}]]
        for name, ((text, extra),) in (
            ("positive", random_conditioning(1)),
            ("negative", random_conditioning(2)),
        )
    }
    without = moved(sample(model, sigmas), sigmas)
    plain = moved(sample(model, sigmas, **texts), sigmas)
    assert relative_error(without, plain) > 0.1, "the ControlNet must matter for this test to see anything"
    got, report = run(model, value(kind), sigmas, **texts)
    assert "R" in report.pattern
    assert relative_error(got, plain) < 2e-2


@each_kind
def test_another_nodes_block_replacement_stays_in_force(model: Any, kind: str) -> None:
    """Whether it was set before us or after us."""
    sigmas = near()
    calls = []

    def shifted(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        out = extra["original_block"](args)
        out["img"] = out["img"].roll(1, dims=-1)
        return out

    changed = model.clone()
    changed.set_model_patch_replace(shifted, "dit", "single_block", 1)
    plain = moved(sample(changed, sigmas), sigmas)
    assert relative_error(moved(sample(model, sigmas), sigmas), plain) > 0.05
    calls.clear()
    before, report = run(changed, value(kind), sigmas)
    assert len(calls) == report.computed
    fast = accelerate(model, value(kind))
    fast.set_model_patch_replace(shifted, "dit", "single_block", 1)
    after = moved(sample(fast, sigmas), sigmas)
    for got in (before, after):
        assert relative_error(got, plain) < 2e-2


@each_kind
def test_runs_leave_nothing_behind(model: Any, kind: str) -> None:
    sigmas = near()
    plain = sample(model, sigmas)
    fast = accelerate(model, value(kind))
    first = sample(fast, sigmas)
    sample(fast, sigmas, start=noise(size=4))

    def stop(step: int, *rest: Any) -> None:
        if step == 6:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(fast, sigmas, callback=stop)
    assert torch.equal(sample(fast, sigmas), first)
    assert torch.equal(sample(model, sigmas), plain)
    assert fast.model_options["transformer_options"].get("patches_replace") in (None, {})


@each_kind
def test_solvers_with_several_calls_a_step_are_left_alone(model: Any, kind: str) -> None:
    sigmas = native_sigmas(8, 2.05)
    plain = sample(model, sigmas, "heun")
    got, report = run(model, value(kind), sigmas, sampler="heun")
    assert torch.equal(got, moved(plain, sigmas))
    assert "R" not in report.pattern


def test_tiles_of_one_condition_are_left_alone(model: Any) -> None:
    """A wrapper that runs each branch on two halves, as tiling nodes do: one condition, two pictures a
    step.
    """
    from comfy.patcher_extension import WrappersMP

    def halves(executor: Any, net: Any, conds: Any, x: Any, timestep: Any, options: Any) -> list:
        parts = [executor(net, conds, half.contiguous(), timestep, options) for half in x.chunk(2, dim=-1)]
        return [torch.cat(branch, dim=-1) for branch in zip(*parts, strict=True)]

    tiled = model.clone()
    tiled.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "tiles", halves)
    sigmas = near()
    plain = moved(sample(tiled, sigmas), sigmas)
    got, report = run(tiled, value("first_block"), sigmas)
    assert torch.equal(got, plain)
    assert f"left {STEPS} steps alone" in report.line()


def test_models_without_kleins_blocks_are_refused() -> None:
    class Other:
        model_options: dict[str, Any] = {}

        class model:  # noqa: N801
            diffusion_model = torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match="works on FLUX.2 .klein.'s blocks"):
        accelerate(Other(), value("first_block"))


def test_too_many_back_blocks_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="back_blocks is 3.*3 single blocks"):
        run(model, value("dual_block", back_blocks=3), near())


@pytest.mark.parametrize("kind", ["first_block", "dual_block", "tea"])
def test_compiled_blocks(model: Any, kind: str) -> None:
    """Per-block torch.compile, as core's node for it sets it up; the eager backend keeps the bits
    comparable.
    """
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    network = model.model.diffusion_model
    keys = [f"diffusion_model.double_blocks.{i}" for i in range(len(network.double_blocks))]
    keys += [f"diffusion_model.single_blocks.{i}" for i in range(len(network.single_blocks))]
    sigmas = near()
    plain, report = run(model, value(kind), sigmas)
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend="eager", keys=keys)
    got, report_compiled = run(compiled, value(kind), sigmas)
    assert report_compiled.pattern == report.pattern
    assert relative_error(got, plain) < 1e-5
