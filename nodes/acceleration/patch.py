"""The one place where acceleration touches ComfyUI: a single wrapper on a clone of the model.

The wrapper runs once around every sampling run. ComfyUI gives each run its own copy of the model options;
everything else (deciding, cached tensors, block patches) is put into that copy, so it ends with the run,
however the run ends, and neither the model nor another sampler ever sees it. Nothing of ComfyUI is replaced
or copied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.model_patcher
import comfy.samplers
from torch import Tensor

from ..base import seams
from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.values import Acceleration
from . import presets
from .attached import adapt, find_attached
from .availability import keep_available
from .conditions import read_conditions
from .controller import Controller, Facts
from .report import RunReport

logger = logging.getLogger("kleinod.acceleration")

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

KEY = "kleinod.acceleration"
NEEDS_BLOCKS = ("first_block", "dual_block", "tea")


def accelerate(
    model: Any, acceleration: Acceleration | None, on_report: Callable[[RunReport], None] | None = None
) -> Any:
    """A clone of `model` (ModelPatcher) that samples with `acceleration`; the very `model` where that changes
    nothing.

    on_report is called at the end of every sampling run. Applying it again replaces the earlier settings.
    Raises ValueError where the method needs FLUX.2 [klein]'s blocks and the model has others.
    """
    acceleration, _ = keep_available(acceleration, model)
    if presets.is_off(acceleration):
        return model
    require_suitable(model, acceleration)
    require_alone(model.model_options, acceleration)
    accelerated = model.clone()
    accelerated.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    accelerated.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _Accelerator(acceleration, on_report))
    return accelerated


def require_suitable(model: Any, acceleration: Acceleration) -> None:
    needs = acceleration.method in NEEDS_BLOCKS or acceleration.reference_cache != "off"
    if needs and count_blocks(model.model.diffusion_model) == (0, 0):
        what = acceleration.method if acceleration.method in NEEDS_BLOCKS else "reference_cache"
        raise InputError(
            f"'{what}' works on FLUX.2 [klein]'s blocks, but the connected model is "
            f"{name_other_family(model) or 'one without blocks'}. Connect a Klein model, or use the "
            "forecast, which fits any model."
        )


def require_alone(model_options: dict[str, Any], acceleration: Acceleration) -> None:
    """Raises ValueError where another node caches what `acceleration` is to cache: each would take the
    other's guesses for the model's own answers.
    """
    options = model_options.get("transformer_options", {})
    other = options.get("easycache")
    if other is not None:
        raise InputError(
            f"{getattr(other, 'name', 'EasyCache')} and Klein Acceleration are both connected to this model, "
            "but two caches would reuse each other's guesses. Keep one of them and remove the other."
        )
    patches = options.get("patches", {}).get("attn1_patch", ())
    if not any(type(patch).__name__ == "KV_Attn_Input" for patch in patches):
        return
    if acceleration.reference_cache != "off":
        raise InputError(
            "Flux KV Cache and reference_cache both keep the keys of reference images. Remove Flux KV Cache "
            "or set reference_cache to off."
        )
    if acceleration.guidance_interval > 1 or acceleration.guidance_end_percentage < 100:
        raise InputError(
            "Flux KV Cache keeps the references of both branches of guidance in one piece and gives the "
            "prompt those of the negative prompt where only one branch runs. Remove Flux KV Cache and use "
            "reference_cache, or set guidance_interval to 1 and guidance_end_percentage to 100."
        )


def count_blocks(network: Any) -> tuple[int, int]:
    """Double and single blocks of a klein transformer; (0, 0) for anything else."""
    doubles, singles = getattr(network, "double_blocks", ()), getattr(network, "single_blocks", ())
    modulated_alike = getattr(getattr(network, "params", None), "global_modulation", False)
    return (len(doubles), len(singles)) if modulated_alike else (0, 0)


class _Accelerator:
    """The OUTER_SAMPLE wrapper. Holds settings only; every run gets a Controller of its own."""

    def __init__(self, acceleration: Acceleration, on_report: Callable[[RunReport], None] | None) -> None:
        self.acceleration = acceleration
        self.on_report = on_report

    def __call__(
        self,
        executor: Any,
        noise: Tensor,
        latent: Tensor,
        sampler: Any,
        sigmas: Tensor,
        *rest: Any,
        **options: Any,
    ) -> Tensor:
        guider = executor.class_obj
        require_alone(guider.model_options, self.acceleration)
        network = guider.model_patcher.model.diffusion_model
        doubles, singles = count_blocks(network)
        settings, given_up = adapt(self.acceleration, find_attached(guider.model_options))
        controller = Controller(
            settings,
            Facts(tuple(sigmas.tolist()), steps_like_euler(sampler), doubles, singles),
        )
        run = _Run(controller, guider, getattr(network, "patch_size", 1))
        try:
            with own_options(guider):
                run.install()
                result = executor(noise, latent, sampler, sigmas, *rest, **options)
            report = controller.finish()
            report.notes.extend(given_up)
        finally:
            controller.forget()
        logger.info(report.line())
        if self.on_report is not None:
            self.on_report(report)
        return result


@contextmanager
def own_options(guider: Any) -> Iterator[None]:
    """Give the guider model options of its own for a while. What is put in there is gone afterwards, also
    where a wrapper further out samples twice.
    """
    given = guider.model_options
    guider.model_options = comfy.model_patcher.create_model_options_clone(given)
    try:
        yield
    finally:
        guider.model_options = given


def condition_keys(transformer_options: dict[str, Any]) -> list[Any]:
    """One key for each condition of a call, in the order of its rows.

    ComfyUI gives the negative prompt a twin of every area of the prompt, uuid and all: the branch has to be
    part of the key.
    """
    uuids = transformer_options.get("uuids") or []
    branches = transformer_options.get("cond_or_uncond") or []
    return list(zip(uuids, branches, strict=True)) if len(uuids) == len(branches) else list(uuids)


def steps_like_euler(sampler: Any) -> bool:
    """True where the solver moves x by exactly width * (x - denoised) / sigma and keeps no memory of its
    own.
    """
    function = getattr(sampler, "sampler_function", None)
    options = getattr(sampler, "extra_options", None) or {}
    return function is comfy.k_diffusion.sampling.sample_euler and not options.get("s_churn")


class _Run:
    """One sampling run: the Controller's hands inside ComfyUI."""

    def __init__(self, controller: Controller, guider: Any, patch_size: int) -> None:
        self.controller = controller
        self.guider = guider
        self.patch_size = patch_size
        self._plain_guidance = type(guider).predict_noise is comfy.samplers.CFGGuider.predict_noise
        self._branch_calls = 0

    def install(self) -> None:
        """Put the hooks into this run's private model options, innermost of all wrappers.

        Innermost, because a wrapper further out may change the guidance per step (core's CFG Override does):
        it must have done so before the forecast looks.
        """
        transformer_options = self.guider.model_options.setdefault("transformer_options", {})
        wrappers = transformer_options.setdefault("wrappers", {})

        def innermost(kind: str, wrapper: Callable[..., Any]) -> None:
            wrappers.setdefault(kind, {}).pop(KEY, None)
            wrappers[kind][KEY] = [wrapper]

        innermost(WrappersMP.PREDICT_NOISE, self.predict_noise)
        if not self._inside_the_network:
            return
        controller = self.controller
        innermost(WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)
        innermost(WrappersMP.APPLY_MODEL, self.apply_model)
        if controller.blocks is not None:
            self._install_blocks(transformer_options)
        if controller.references is not None:
            patches = transformer_options.setdefault("patches", {})
            patches["post_input"] = [*patches.get("post_input", []), controller.references.cut_references]
            patches["attn1_patch"] = [*patches.get("attn1_patch", []), self.attend]

    def _install_blocks(self, transformer_options: dict[str, Any]) -> None:
        """Stand before every block, around whatever another node put there."""
        replace = transformer_options.setdefault("patches_replace", {}).setdefault("dit", {})
        facts, blocks = self.controller.facts, self.controller.blocks
        for kind, count, handle in (
            ("double_block", facts.double_blocks, blocks.double),
            ("single_block", facts.single_blocks, blocks.single),
        ):
            for i in range(count):
                replace[(kind, i)] = _stand_before(handle, i, replace.get((kind, i)))

    def predict_noise(
        self,
        executor: Any,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """PREDICT_NOISE: once per evaluation of the solver, x -> the denoised picture after guidance."""
        controller = self.controller
        sigma = controller.read_sigma(timestep)
        if self._solver_reads_branches(model_options or {}):
            controller.disable("this sampler reads both branches of guidance")
        if self._inside_the_network and "multigpu_clones" in (model_options or {}):
            # Each GPU runs its branches in a thread of its own.
            controller.disable(
                "several GPUs share this run, which only the forecast supports", hold_references=False
            )
        self._branch_calls = 0
        if controller.begin(sigma, read_conditions(self.guider, sigma, x)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            return controller.forecast(x)
        return controller.learn(x, executor(x, timestep, model_options, seed))

    @property
    def _inside_the_network(self) -> bool:
        controller = self.controller
        stores = (controller.blocks, controller.guidance, controller.references)
        return any(store is not None for store in stores)

    def _solver_reads_branches(self, model_options: dict[str, Any]) -> bool:
        """The cfg++ solvers add a post-CFG function of their own, which a step without a network would not
        call.
        """
        if self.controller.plan.method != "forecast":
            return False
        name = "sampler_post_cfg_function"
        return len(model_options.get(name, ())) > len(self.guider.model_options.get(name, ()))

    def calc_cond_batch(
        self,
        executor: Any,
        model: Any,
        conds: list[Any],
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """CALC_COND_BATCH: all branches of a step, before they are batched."""
        controller, guidance, blocks = self.controller, self.controller.guidance, self.controller.blocks
        self._branch_calls += 1
        if blocks is not None and self._branch_calls > 1:
            blocks.in_parts()
        both = len(conds) == 2 and conds[0] is not None and conds[1] is not None
        if guidance is not None and both and self._plain_guidance:
            if self._branch_calls > 1:
                controller.disable("tiles or context windows run guidance in parts")
            elif guidance.mode != "full":
                conditional = self._run_branches(
                    executor, model, [conds[0], None], x, timestep, model_options
                )[0]
                return [conditional, guidance.unconditional(conditional)]
        out = self._run_branches(executor, model, conds, x, timestep, model_options)
        fresh = blocks is None or not blocks.reused
        if guidance is not None and both and self._plain_guidance and self._branch_calls == 1 and fresh:
            guidance.learn(out[0], out[1])
        return out

    def _run_branches(self, executor: Any, *args: Any) -> list[Tensor]:
        out = executor(*args)
        blocks, references = self.controller.blocks, self.controller.references
        if blocks is not None and blocks.redo:
            blocks.force()
            if references is not None:
                references.restart_step()
            out = executor(*args)
        return out

    def apply_model(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **extra: Any,
    ) -> Tensor:
        """APPLY_MODEL: one call of the network for some of the branches; outside of any compiled graph."""
        options = transformer_options or {}
        keys = condition_keys(options)
        blocks, references = self.controller.blocks, self.controller.references
        half = self.patch_size // 2
        height, width = ((side + half) // self.patch_size for side in x.shape[-2:])
        if references is not None:
            latents = extra.get("ref_latents") or []
            if references.exact and latents:
                extra["ref_latents_method"] = "index_timestep_zero"
            shapes = tuple(tuple(latent.shape[1:]) for latent in latents)
            masked = extra.get("attention_mask") is not None
            references.begin_call(keys, x.shape[0], height * width, shapes, masked)
        if blocks is not None:
            blocks.begin_call(keys, x.shape[0], height, width)
        try:
            return executor(x, t, c_concat, c_crossattn, control, options, **extra)
        finally:
            for store in (blocks, references):
                if store is not None:
                    store.end_call()

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pe: Any = None,
        attn_mask: Tensor | None = None,
        extra_options: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        return self.controller.references.attend(q, k, v, attn_mask, extra_options or {})


def _stand_before(handle: Callable[..., dict[str, Any]], i: int, inner: Any) -> Callable[..., dict[str, Any]]:
    """A block replacement that asks `handle`, which may run the original (or another node's replacement) or
    not.
    """

    def replacement(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        original = extra["original_block"]
        block = original if inner is None else (lambda given: inner(given, {"original_block": original}))
        return handle(i, args, block)

    return replacement
