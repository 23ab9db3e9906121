"""Every kind of cache, run after run: nothing is left behind however a run ends, and no run sees another."""

from __future__ import annotations

import gc
import types
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from kleinod.nodes.acceleration.controller import Controller
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.sampling.schedule import native_sigmas

from tests.model.acceleration_rig import (
    EVERY,
    both_with_references,
    near,
    noise,
    percent_before,
    plain,
    relative_error,
    run,
    sample,
    with_short_text,
)
from tests.model.tiny_klein import load_tiny_model, random_conditioning

each_kind = pytest.mark.parametrize("kind", EVERY)
each_level = pytest.mark.parametrize("kind", ["forecast", "first_block", "guidance", "refresh", "tea, exact"])


@pytest.fixture(scope="module")
def model() -> Any:
    return with_short_text(load_tiny_model(double=1, single=2))


@pytest.fixture(scope="module")
def texts() -> dict[str, list]:
    return both_with_references(noise(size=2, seed=8))


@pytest.fixture
def few_objects():
    """The collector passes over everything that is already there, so that it can be asked often."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def tensors() -> int:
    """Tensors made since the test began that Python still holds."""
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


def count_tensors(things: list[Any]) -> int:
    """Tensors within reach of a policy's own state."""
    found, seen, waiting = 0, set(), list(things)
    while waiting:
        here = waiting.pop()
        if id(here) in seen or isinstance(here, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(here))
        found += isinstance(here, torch.Tensor)
        waiting += gc.get_referents(here)
    return found


class Spoilt(Exception):
    pass


@each_kind
def test_no_tensor_outlives_its_run(model: Any, texts: dict, few_objects: None, kind: str) -> None:
    """Whether it ends, is stopped, or fails."""
    fast = accelerate(model, EVERY[kind])
    sigmas = near()
    errors = {"interrupted": comfy.model_management.InterruptProcessingException, "failed": Spoilt}

    def run_until(end: str) -> None:
        def stop(step: int, *rest: Any) -> None:
            if step == 8 and end in errors:
                raise errors[end]

        try:
            sample(fast, sigmas, callback=stop, **texts)
        except tuple(errors.values()) as error:
            # The exception may live on; its frames, and with them the run's own variables, do not.
            kept.append(error.with_traceback(None))

    kept: list[BaseException] = []
    sample(model, sigmas[:2], **texts)
    before = tensors()
    for end in ("done", *errors):
        run_until(end)
        assert tensors() == before, end
    assert len(kept) == 2


@each_kind
def test_run_after_run(model: Any, texts: dict, kind: str) -> None:
    """Again, after another size, after an interrupt, and with the node taken out."""
    sigmas = near()
    untouched = sample(model, sigmas, **texts)
    fast = accelerate(model, EVERY[kind])
    first = sample(fast, sigmas, **texts)
    assert not torch.equal(first, untouched)
    sample(fast, native_sigmas(10, 2.05), start=noise(size=4), **texts)

    def stop(step: int, *rest: Any) -> None:
        if step == 7:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(fast, sigmas, callback=stop, **texts)
    assert torch.equal(sample(fast, sigmas, **texts), first)
    assert torch.equal(sample(model, sigmas, **texts), untouched)
    for options in (fast.model_options, model.model_options):
        assert "patches_replace" not in options["transformer_options"]
        assert "attn1_patch" not in options["transformer_options"].get("patches", {})


@each_level
def test_two_samplers_interleaved(model: Any, texts: dict, kind: str) -> None:
    """The second run begins and ends while the first is half way."""
    fast = accelerate(model, EVERY[kind])
    sigmas = near()
    alone, other_alone = sample(fast, sigmas, **texts), sample(fast, sigmas, start=noise(seed=9), **texts)
    inner: list[torch.Tensor] = []

    def other_run(step: int, *rest: Any) -> None:
        if step == 6:
            current = model.model.current_patcher
            inner.append(sample(fast, sigmas, start=noise(seed=9), **texts))
            model.model.current_patcher = current

    assert torch.equal(sample(fast, sigmas, callback=other_run, **texts), alone)
    assert torch.equal(inner[0], other_alone)


@each_level
def test_a_node_that_samples_twice_in_one_run(model: Any, texts: dict, kind: str) -> None:
    """Tiling and two-pass nodes wrap the run itself; the second pass must know nothing of the first."""
    passes: list[torch.Tensor] = []

    def twice(executor: Any, *args: Any, **options: Any) -> torch.Tensor:
        passes.append(executor(*args, **options))
        passes.append(executor(*args, **options))
        return passes[-1]

    doubled = model.clone()
    doubled.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "twice", twice)
    told: list[Any] = []
    sample(accelerate(doubled, EVERY[kind], told.append), near(), **texts)
    assert torch.equal(passes[0], passes[1])
    assert told[0].data() == told[1].data()
    assert told[0].speed > 1


@pytest.mark.parametrize("kind", ["forecast", "first_block", "guidance", "refresh"])
@pytest.mark.parametrize("steps", [1, 4])
def test_distilled_runs_are_left_alone(model: Any, texts: dict, kind: str, steps: int) -> None:
    sigmas = native_sigmas(steps, 2.05)
    got, report = run(model, EVERY[kind], sigmas, **texts)
    assert torch.equal(got, plain(model, sigmas, **texts))
    assert "too few to skip" in report.line()


@each_level
def test_not_a_number_is_not_kept(model: Any, texts: dict, kind: str) -> None:
    """The network breaks at one step. What is taken over into later steps must be sound."""
    spoilt, calls = 6, []

    def spoil(executor: Any, *args: Any, **options: Any) -> torch.Tensor:
        out = executor(*args, **options)
        calls.append(1)
        return out * float("nan") if len(calls) == spoilt else out

    def heal(args: dict[str, Any]) -> torch.Tensor:
        """As some nodes do: the solver goes on with something finite."""
        return torch.nan_to_num(args["denoised"])

    broken = model.clone()
    broken.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "spoil", spoil)
    broken.set_model_sampler_post_cfg_function(heal)
    result = sample(accelerate(broken, EVERY[kind]), near(20), **texts)
    assert torch.isfinite(result).all()


@each_kind
def test_a_hook_that_changes_the_weights(model: Any, texts: dict, kind: str) -> None:
    """A LoRA that comes in half way: what was kept of the old weights is worthless."""
    weight = "diffusion_model.single_blocks.0.linear2.weight"
    generator = torch.Generator().manual_seed(3)
    shape = model.model.state_dict()[weight].shape
    hooks = comfy.hooks.create_hook_model_as_lora(
        {weight: torch.randn(shape, generator=generator) * 0.2}, None, 1.0, 0.0
    )
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0))
    sigmas = near(16)
    frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=percent_before(model, sigmas, 8)))
    hooks.set_keyframes_on_hooks(frames)
    hooked = {name: comfy.hooks.set_hooks_for_conditioning(text, hooks) for name, text in texts.items()}
    ours = model.clone()
    wanted = plain(causal(ours) if "exact" in kind else ours, sigmas, **hooked)
    calm = plain(causal(ours) if "exact" in kind else ours, sigmas, **texts)
    assert relative_error(calm, wanted) > 0.1
    got, report = run(ours, EVERY[kind], sigmas, **hooked)
    changed = [i for i, record in enumerate(report.records) if record.note == "conditions changed"]
    assert len(changed) == 1 and changed[0] in (8, 9)
    assert report.pattern[changed[0]] == "C" or report.method == "guidance"
    assert relative_error(got, wanted) < 2e-2


@each_level
def test_hooks_of_one_branch_only(model: Any, texts: dict, kind: str) -> None:
    """A LoRA on the prompt alone: the branches run on different weights, in calls of their own."""
    weight = "diffusion_model.single_blocks.1.linear2.weight"
    generator = torch.Generator().manual_seed(3)
    change = torch.randn(model.model.state_dict()[weight].shape, generator=generator) * 0.2
    hooks = comfy.hooks.create_hook_model_as_lora({weight: change}, None, 1.0, 0.0)
    hooked = {**texts, "positive": comfy.hooks.set_hooks_for_conditioning(texts["positive"], hooks)}
    ours = causal(model) if "exact" in kind else model.clone()
    wanted = plain(ours, near(), **hooked)
    got, report = run(model.clone(), EVERY[kind], near(), **hooked)
    assert report.speed > 1.005
    assert relative_error(got, wanted) < 2e-2


def causal(model: Any) -> Any:
    from tests.model.test_acceleration_references import causal as rule

    return rule(model)


@each_kind
def test_two_prompts_joined_and_one_for_a_part(model: Any, texts: dict, kind: str) -> None:
    """Conditioning Combine and an area: more than one condition a branch, of different size."""
    left = random_conditioning(5)
    left[0][1]["area"] = (6, 3, 0, 0)
    left[0][1]["strength"] = 1.0
    joined = {**texts, "positive": texts["positive"] + random_conditioning(6) + left}
    ours = causal(model) if "exact" in kind else model
    wanted = plain(ours, near(), **joined)
    got, report = run(model, EVERY[kind], near(), **joined)
    assert report.speed > 1.005, report.line()
    assert relative_error(got, wanted) < 2e-2


def test_several_gpus_leave_only_the_forecast(model: Any, texts: dict) -> None:
    """Each GPU runs its branches in a thread of its own; here one device poses as the second."""
    for kind in ("forecast", "first_block", "guidance", "refresh"):
        told: list[Any] = []
        posing = accelerate(model, EVERY[kind], told.append)

        def pose(executor: Any, x: Any, timestep: Any, options: Any = None, seed: Any = None) -> Any:
            return executor(x, timestep, {**options, "multigpu_clones": {}}, seed)

        posing.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "pose", pose)
        posing.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "pose", _single_device)
        sample(posing, near(), **texts)
        assert (told[-1].speed > 1) == (kind == "forecast"), kind


def _single_device(executor: Any, *args: Any) -> Any:
    options = {name: value for name, value in args[-1].items() if name != "multigpu_clones"}
    return executor(*args[:-1], options)


@each_level
def test_a_kept_exception_keeps_no_cache(model: Any, texts: dict, few_objects: None, kind: str) -> None:
    """Whoever holds on to the error of a failed run holds its frames, but no cached tensors with them."""

    def stop(step: int, *rest: Any) -> None:
        if step == 8:
            raise Spoilt

    with pytest.raises(Spoilt) as kept:
        sample(accelerate(model, EVERY[kind]), near(), callback=stop, **texts)
    assert kept.value.__traceback__ is not None
    controllers = [thing for thing in gc.get_objects() if isinstance(thing, Controller)]
    assert len(controllers) == 1
    (controller,) = controllers
    assert [policy.title for policy in controller.policies]
    for policy in controller.policies:
        # Only settings and facts are within reach, no tensor: what earlier steps left is gone.
        state = [thing for thing in vars(policy).values() if thing is not controller]
        assert count_tensors(state) == 0, policy.title
