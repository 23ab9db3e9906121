"""How a run of ComfyUI is accelerated: a single wrapper on a clone of the model.

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

import torch
from torch import Tensor

from ..base import graph_capture, seams
from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.noise import fit_mu
from ..base.sentences import say
from ..base.values import Acceleration
from .attached import adapt, find_attached
from .availability import keep_available
from .calibration_files import tables_of
from .conditions import read_conditions
from .controller import Controller
from .fingerprint import read_fingerprint
from .learning_files import learned_tables
from .linear_solver import LinearSolver, euler_solver, probe_solver
from .policies.policy import Call, ModelFacts, Policy, RunFacts
from .policies.registry import list_wanted, shorten_run
from .report import RunReport
from .solvers import LINEAR, calls_once_a_step, has_noise_path, name_solver, read_options

comfy = seams.modules("comfy.model_management", "comfy.model_patcher", "comfy.samplers")

logger = logging.getLogger("kleinod.acceleration")

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

KEY = "kleinod.acceleration"


def accelerate(
    model: Any,
    acceleration: Acceleration | None,
    on_report: Callable[[RunReport], None] | None = None,
) -> Any:
    """A clone of `model` (ModelPatcher) that samples with `acceleration`; the very `model` where that changes
    nothing.

    on_report is called at the end of every sampling run. Applying it again replaces the earlier settings.
    Raises InputError where the method needs FLUX.2 [klein]'s blocks and the model has others.
    """
    acceleration, _ = keep_available(acceleration, model)
    if acceleration is None or not list_wanted(acceleration):
        return model
    check_settings(model, acceleration)
    accelerated = model.clone()
    accelerated.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    accelerator = _Accelerator(acceleration, on_report)
    accelerated.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, accelerator)
    return accelerated


def check_settings(model: Any, acceleration: Acceleration, steps: int | None = None) -> None:
    """Raises InputError, before anything is sampled, where the settings do not fit this model (a
    ModelPatcher), what other nodes put on it, or, where known, the run's number of steps.
    """
    facts = read_model(model)
    check_alone(model.model_options)
    for policy in list_wanted(acceleration):
        if policy.needs_blocks and not facts.blocks:
            raise InputError(
                say(
                    "'%1' works on FLUX.2 [klein]'s blocks, but the connected model is "
                    "%2. Connect a Klein model, or use the "
                    "forecast, which fits any model.",
                    policy.title,
                    name_other_family(model) or "one without blocks",
                )
            )
        fits = steps is None or steps >= policy.min_steps(acceleration)
        policy.check(acceleration, facts, steps if fits else None)


def check_alone(model_options: dict[str, Any]) -> None:
    """Raises InputError where another cache is on the model: each would take the other's guesses for the
    model's own answers.
    """
    other = model_options.get("transformer_options", {}).get("easycache")
    if other is not None:
        raise InputError(
            say(
                "%1 and Klein Acceleration are both connected to this model, "
                "but two caches would reuse each other's guesses. Keep one of them and remove the other.",
                getattr(other, "name", "EasyCache"),
            )
        )


def read_model(model: Any, model_options: dict[str, Any] | None = None) -> ModelFacts:
    """What policies may know of a ModelPatcher; model_options: its own, where not given."""
    options = (model.model_options if model_options is None else model_options).get("transformer_options", {})
    patches = options.get("patches", {}).get("attn1_patch", ())
    doubles, singles = count_blocks(model.model.diffusion_model)
    kv_cache = any(type(patch).__name__ == "KV_Attn_Input" for patch in patches)
    return ModelFacts(doubles, singles, kv_cache)


def count_blocks(network: Any) -> tuple[int, int]:
    """Double and single blocks of a klein transformer; (0, 0) for anything else."""
    doubles, singles = getattr(network, "double_blocks", ()), getattr(network, "single_blocks", ())
    modulated_alike = getattr(getattr(network, "params", None), "global_modulation", False)
    return (len(doubles), len(singles)) if modulated_alike else (0, 0)


def find_mu(latent: Tensor, steps: int, facts: ModelFacts) -> float | None:
    """How FLUX.2 shifts the time of a run over `latent` `[..., h, w]`; None for another model."""
    return fit_mu(latent.shape[-1] * latent.shape[-2], steps) if facts.blocks else None


def computes_roughly(patcher: Any) -> bool:
    """Whether a ModelPatcher's network computes in less than float32, whatever its weights are kept in."""
    dtype = patcher.get_model_object("manual_cast_dtype") or patcher.model.get_dtype()
    return bool(dtype != torch.float32)


class _Accelerator:
    """The OUTER_SAMPLE wrapper. Holds settings only; every run gets a Controller of its own."""

    def __init__(
        self,
        acceleration: Acceleration,
        on_report: Callable[[RunReport], None] | None,
    ) -> None:
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
        check_alone(guider.model_options)
        facts = read_model(guider.model_patcher, guider.model_options)
        for policy in list_wanted(self.acceleration):
            policy.check(self.acceleration, facts)
        network = guider.model_patcher.model.diffusion_model
        fingerprint = read_fingerprint(guider.model_patcher)
        guidance = float(getattr(guider, "cfg", 1.0))
        run_facts = RunFacts(
            tuple(sigmas.tolist()),
            solver=read_solver(sampler, sigmas.tolist(), guider.model_patcher, guidance),
            regular=calls_once_a_step(sampler),
            noise_path=has_noise_path(sampler),
            guidance=guidance,
            mu=find_mu(noise, len(sigmas) - 1, facts),
            rough=computes_roughly(guider.model_patcher),
            model=facts,
            fingerprint=fingerprint,
            tables=(*tables_of(fingerprint), *learned_tables(fingerprint)),
        )
        settings, said = adapt(self.acceleration, find_attached(guider.model_options))
        steps = run_facts.steps
        settings, run_facts, words = shorten_run(settings, run_facts)
        if words:
            said.append(words)
            sigmas = sigmas.new_tensor(run_facts.sigmas)
        controller = Controller(settings, run_facts)
        run = _Run(controller, guider, getattr(network, "patch_size", 1))
        try:
            with own_options(guider):
                run.install()
                result = executor(noise, latent, sampler, sigmas, *rest, **options)
            report = controller.finish()
            report.asked = steps
            if report.shortened:
                report.method = " + ".join(["fewer steps", *(policy.title for policy in controller.policies)])
            report.notes.extend(said)
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


def read_solver(
    sampler: Any, sigmas: list[float], patcher: Any, guidance: float = 1.0
) -> LinearSolver | None:
    """What a SAMPLER does with denoised pictures; None where it adds noise or is not known."""
    name, options = name_solver(sampler), read_options(sampler)
    silenced = name == "sample_dpmpp_3m_sde" and options.get("eta", 1.0) == 0
    if not (name in LINEAR or silenced) or options.get("s_churn"):
        return None
    function = sampler.sampler_function
    if name == "sample_euler":
        return euler_solver(sigmas)

    def run(model: Any, x: Tensor, levels: Tensor) -> Tensor:
        stand_in = _StandIn(model, patcher, guidance)
        extra_args = {"seed": 0, "model_options": {}}  # with a seed no noise is drawn from the global state
        return function(stand_in, x, levels, extra_args=extra_args, callback=None, disable=True, **options)

    return probe_solver(run, sigmas)


class _StandIn:
    """What a solver of ComfyUI may ask of the model it is given."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor], patcher: Any, guidance: float) -> None:
        self.cfg = guidance
        self._answer = answer
        self.model_patcher = patcher
        self.model_sampling = patcher.get_model_object("model_sampling")
        self.inner_model = self

    def __call__(self, x: Tensor, sigma: Tensor, **options: Any) -> Tensor:
        return self._answer(x, sigma)


class _Run:
    """One sampling run: ComfyUI's hooks, each handing over to the Controller and its policies."""

    def __init__(self, controller: Controller, guider: Any, patch_size: int) -> None:
        self.controller = controller
        self.guider = guider
        self.patch_size = patch_size
        self._plain_guidance = type(guider).predict_noise is comfy.samplers.CFGGuider.predict_noise
        self._branch_calls = 0
        self._captured = False

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
        if not self._inside:
            return
        innermost(WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)
        innermost(WrappersMP.APPLY_MODEL, self.apply_model)
        patches = transformer_options.setdefault("patches", {})
        for policy in self._inside:
            if policy.replaces_blocks:
                self._install_blocks(policy, transformer_options)
            if policy.replaces_attention:
                patches["post_input"] = [*patches.get("post_input", []), policy.enter]
                patches["attn1_patch"] = [
                    *patches.get("attn1_patch", []),
                    _attend_for(policy, self.is_captured),
                ]

    def _install_blocks(self, policy: Policy, transformer_options: dict[str, Any]) -> None:
        """Stand before every block, around whatever another node or policy put there."""
        replace = transformer_options.setdefault("patches_replace", {}).setdefault("dit", {})
        facts = self.controller.run.model
        for kind, count in (("double_block", facts.double_blocks), ("single_block", facts.single_blocks)):
            for i in range(count):
                replace[(kind, i)] = _stand_before(policy, kind, i, replace.get((kind, i)), self.is_captured)

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
            controller.disable(say("this sampler reads both branches of guidance"))
        if self._inside and "multigpu_clones" in (model_options or {}):
            # Each GPU runs its branches in a thread of its own.
            controller.disable(
                say("several GPUs share this run and only the forecast supports that"), hold_exact=False
            )
        self._branch_calls = 0
        if controller.begin(sigma, read_conditions(self.guider, sigma, x)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            return controller.forecast(x)
        return controller.learn(x, executor(x, timestep, model_options, seed))

    @property
    def _inside(self) -> list[Policy]:
        return [policy for policy in self.controller.policies if policy.inside_network]

    def _solver_reads_branches(self, model_options: dict[str, Any]) -> bool:
        """The cfg++ solvers add a post-CFG function of their own, which a step without a network would not
        call.
        """
        if all(policy.inside_network for policy in self.controller.policies):
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
        controller, policies = self.controller, self.controller.policies
        self._branch_calls += 1
        both = len(conds) == 2 and conds[0] is not None and conds[1] is not None
        guided = both and self._plain_guidance
        if self._branch_calls > 1:
            for reason in [policy.in_parts(guided) for policy in policies]:
                if reason:
                    controller.disable(reason)
        elif guided:
            for policy in policies:
                if policy.spares_branch:
                    prompt_only = self._run_branches(
                        executor, model, [conds[0], None], x, timestep, model_options
                    )[0]
                    return [prompt_only, policy.make_up_branch(prompt_only)]
        out = self._run_branches(executor, model, conds, x, timestep, model_options)
        fresh = not any(policy.reused for policy in policies)
        if guided and self._branch_calls == 1 and fresh:
            for policy in policies:
                policy.learn_branches(out[0], out[1])
        return out

    def is_captured(self) -> bool:
        """Whether ComfyUI captures what is called now: then it must be the network as it is."""
        if graph_capture.is_capturing():
            self._captured = True
            return True
        return False

    def _run_branches(self, executor: Any, *args: Any) -> list[Tensor]:
        out = executor(*args)
        if self._captured:
            # Some blocks may have been left out before: the step once more, with nothing of ours in it.
            self._captured = False
            self.controller.disable(
                say("this ComfyUI records the model's blocks as CUDA graphs"), hold_exact=False
            )
            for policy in self.controller.policies:
                policy.redo()
            return executor(*args)
        if any(policy.wants_redo for policy in self.controller.policies):
            for policy in self.controller.policies:
                policy.redo()
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
        half = self.patch_size // 2
        height, width = ((side + half) // self.patch_size for side in x.shape[-2:])
        latents = extra.get("ref_latents") or []
        call = Call(
            condition_keys(options),
            x.shape[0],
            height,
            width,
            references=tuple(tuple(latent.shape[1:]) for latent in latents),
            masked=extra.get("attention_mask") is not None,
            inputs=extra,
        )
        for policy in self.controller.policies:
            policy.begin_call(call)
        try:
            return executor(x, t, c_concat, c_crossattn, control, options, **call.inputs)
        finally:
            for policy in self.controller.policies:
                policy.end_call()


def _attend_for(policy: Policy, is_captured: Callable[[], bool]) -> Callable[..., dict[str, Tensor]]:
    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pe: Any = None,
        attn_mask: Tensor | None = None,
        extra_options: dict[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        if is_captured():
            return {}
        return policy.attend(q, k, v, attn_mask, extra_options or {})

    return attend


def _stand_before(
    policy: Policy, kind: str, i: int, inner: Any, is_captured: Callable[[], bool]
) -> Callable[..., dict[str, Any]]:
    """A block replacement that asks the policy, which may run the original (or another node's replacement)
    or not.
    """

    def replacement(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        original = extra["original_block"]
        block = original if inner is None else (lambda given: inner(given, {"original_block": original}))
        return block(args) if is_captured() else policy.block(kind, i, args, block)

    return replacement
