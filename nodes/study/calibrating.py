"""Klein Calibrate's runs inside ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..acceleration import calibration, gram, presets, signals
from ..acceleration.calibration_files import RULE, calibrations_folder
from ..acceleration.fingerprint import read_fingerprint
from ..acceleration.fitted import make_bridge
from ..acceleration.patch import accelerate, count_blocks
from ..acceleration.policies.forecast import make_plan
from ..acceleration.policies.policy import RunFacts
from ..base import seams
from ..base.acceleration import FAST, HIGHEST, SKIPPED, FittedTable
from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.flux2 import CELL, LATENT_CHANNELS
from ..base.sentences import Sentence, say
from ..base.values import Acceleration, Calibration
from ..model.engine import facts_of
from ..model.text_engine import encode_prompt
from ..sampling import checks
from ..sampling.engine import Guide, check_model, context_width
from ..sampling.fast import sample_fast
from ..sampling.request import SamplingRequest
from ..sampling.schedule import build_schedule
from . import fitting, tables
from .engine import Tell, without_acceleration
from .prompts import NANO_PROMPTS, PROMPTS, list_prompts

comfy = seams.modules("comfy.model_management", "comfy.sample", "comfy.samplers", "comfy.utils")

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

# Presets whose steps are fitted; low computes so many that there is nothing to gain.
LEVELS = ("medium", "high", HIGHEST)
# The run that Kleinod Fast is fitted to is this many times as fine; calls are so many times fewer.
FINENESS = 2
FEWER = (2, 3)
ONE_PROMPT = say(
    "All pictures had one prompt: with clip connected each has another, and the fit holds for prompts it has "
    "not seen."
)


@dataclass(frozen=True)
class Subject:
    """One picture to watch: conditioning of its prompt, and its seed."""

    positive: Any
    seed: int


def list_subjects(
    model: Any, positive: Any, clip: Any, prompts: str, pictures: int, seed: int
) -> tuple[list[Subject], list[Sentence]]:
    """The pictures to watch, and what to say of them: a prompt each, with the references of `positive`.

    Without a CLIP all have the prompt of `positive`. Raises InputError where there are prompts and no CLIP.
    """
    seeds = [(seed + i) % 2**64 for i in range(max(pictures, len(prompts.splitlines())))]
    if clip is None:
        if prompts.strip():
            raise InputError(
                say(
                    "prompts has text, but clip is empty, which has to read it. "
                    "Connect the CLIP of Klein Loader, or empty prompts to use positive alone."
                )
            )
        return [Subject(positive, one) for one in seeds[:pictures]], [ONE_PROMPT]
    facts = facts_of(model)
    own = NANO_PROMPTS if facts is not None and facts.family == "nano" else PROMPTS
    kept = {key: value for key, value in positive[0][1].items() if key.startswith("reference_latents")}
    subjects = []
    for text, one in zip(list_prompts(prompts, own, pictures), seeds, strict=False):
        conditioning, _ = encode_prompt(clip, text, "prompts")
        subjects.append(Subject([[tensor, {**extra, **kept}] for tensor, extra in conditioning], one))
    return subjects, []


def calibrate(
    model: Any,
    subjects: Sequence[Subject],
    negative: Any,
    request: SamplingRequest,
    name: str,
    notes: Sequence[Sentence] = (),
    tell: Tell = lambda text: None,
    folder: Path | None = None,
) -> tuple[Calibration, Sentence]:
    """Watch every subject painted with all calls of the model, fit, and save under `name`; with a report.

    folder: where to, the user's calibrations where not given.

    Raises InputError where the name makes no file, or the model has no FLUX.2 [klein] blocks.
    """
    seams.require(seams.STUDY)
    calibration.check_name(name)
    fitting.check_steps(request.steps)
    check_model(model)
    if count_blocks(model.model.diffusion_model) == (0, 0):
        raise InputError(
            say(
                "Klein Calibrate reads FLUX.2 [klein]'s blocks, but the connected model is "
                "%1. Connect a Klein model.",
                name_other_family(model) or "one without blocks",
            )
        )
    width = context_width(model)
    for subject in subjects:
        checks.check_conditioning("positive", subject.positive, width)
    checks.check_conditioning("negative", negative, width if request.guided else None)
    with torch.inference_mode():
        desk = _Desk(without_acceleration(model), subjects, negative, request, tell)
        watched, signal = desk.watch_steps()
        tried = [*desk.fit_skipped(watched), *desk.fit_fast()]
    coefficients, limit, explained = signal
    value = Calibration(name, coefficients, limit, tables=tuple(table for table in tried if table.wins))
    asked = f"{request.steps} steps, guidance {request.guidance:g}"
    fitted_on = {"pictures": len(subjects), "steps": request.steps, "guidance": request.guidance}
    calibration.save(value, {**fitted_on, "explained": round(explained, 4)}, folder or calibrations_folder())
    return value, fitting.describe(name, len(subjects), asked, tried, explained, notes)


@dataclass
class _Watched:
    """Runs with all calls. path: of each subject, x at each step and at the end; gram: the mean of all."""

    levels: list[float]
    path: list[list[Tensor]]
    gram: Tensor


class _Desk:
    """The subjects on one model: whole runs, and runs of a single call."""

    def __init__(
        self, model: Any, subjects: Sequence[Subject], negative: Any, request: SamplingRequest, tell: Tell
    ) -> None:
        self._model = model
        self._subjects = subjects
        self._negative = negative
        self._request = request
        self._tell = tell
        self._tokens = (request.width // CELL) * (request.height // CELL)
        self._empty = torch.zeros(
            [1, LATENT_CHANNELS, request.height // CELL, request.width // CELL],
            device=comfy.model_management.intermediate_device(),
        )
        self._noise = [comfy.sample.prepare_noise(self._empty, subject.seed) for subject in subjects]
        self._fingerprint = read_fingerprint(model)
        self._progress = comfy.utils.ProgressBar(self._count_calls())

    def watch_steps(self) -> tuple[_Watched, tuple[tuple[float, ...], float, float]]:
        """Euler's runs, and the fit of Tea's curve to them."""
        levels = self._native(1)
        watched = _Watched(levels, [], torch.zeros(len(levels) - 1, len(levels) - 1, dtype=torch.float64))
        signal: list[float | None] = []
        change: list[float | None] = []
        for number in range(len(self._subjects)):
            self._tell(say("watching picture %1 of %2", number + 1, len(self._subjects)))
            tracer = Tracer()
            end = self._run(number, tracer.watch(self._model), comfy.samplers.sampler_object("euler"), levels)
            watched.path.append([*tracer.trace.path, end])
            watched.gram += gram.gram_matrix(tracer.trace.velocities)
            signal += tracer.trace.signal
            change += tracer.trace.change
        return watched, fitting.fit_curve(signal, change)

    def fit_skipped(self, watched: _Watched) -> list[FittedTable]:
        """A table for every number of steps that the presets compute: of the measured steps or of the rule's,
        whichever ends nearer on prompts it was not fitted to.
        """
        levels = watched.levels
        costs = gram.gap_costs(watched.gram, gram.step_rule(levels), presets.MAX_IN_A_ROW + 1)
        fitted = []
        for calls in self._list_counts():
            self._tell(say("fitting %1 of %2 steps", calls, len(levels) - 1))
            # No guard: at equal work, since no table has one.
            speed = Acceleration(
                "high",
                speed=(len(levels) - 1) / calls,
                forecast_error_limit=presets.NO_LIMIT,
                calibration=Calibration(RULE),
            )
            model = accelerate(self._model, speed)
            solver = comfy.samplers.sampler_object("euler")
            rule = [self._run(i, model, solver, levels, calls) for i in range(len(self._subjects))]
            mask = make_plan(speed, self._facts()).reuse
            both = {
                gram.choose_calls(costs, calls),
                tuple(step for step, skipped in enumerate(mask) if not skipped),
            }
            tried = [
                self._fit(SKIPPED, watched, chosen, levels, [*(levels[step] for step in chosen), 0.0], rule)
                for chosen in sorted(both)
            ]
            fitted.append(max(tried, key=lambda table: table.gain))
        return fitted

    def fit_fast(self) -> list[FittedTable]:
        """A table for each number of steps of Kleinod Fast, fitted to a finer run of its own."""
        levels = self._native(FINENESS)
        steps = len(levels) - 1
        watched = _Watched(levels, [], torch.zeros(steps, steps, dtype=torch.float64))
        solver = comfy.samplers.KSAMPLER(sample_fast, {"whole": True})
        for number in range(len(self._subjects)):
            self._tell(say("watching finer picture %1 of %2", number + 1, len(self._subjects)))
            tracer = Tracer()
            end = self._run(number, tracer.watch(self._model), solver, levels)
            velocities = tracer.trace.velocities
            watched.path.append([*_repair(levels, tracer.trace.path, velocities), end])
            watched.gram += gram.gram_matrix(velocities)
        costs = gram.gap_costs(watched.gram, gram.trapezoid_rule(levels), tables.REACH)
        fitted = []
        for calls in self._list_fast():
            self._tell(say("fitting Kleinod Fast to %1 steps", calls))
            chosen = gram.choose_calls(costs, calls)
            usual = build_schedule("fast", calls, self._tokens, self._request.mu).sigmas.tolist()
            rule = [self._run(i, self._model, solver, usual) for i in range(len(self._subjects))]
            kept = [levels[step] for step in chosen]
            fitted.append(self._fit(FAST, watched, chosen, usual, [*kept, 0.0], rule))
        return fitted

    def _fit(
        self,
        kind: str,
        watched: _Watched,
        chosen: tuple[int, ...],
        sigmas: list[float],
        levels: list[float],
        rule: list[Tensor],
    ) -> FittedTable:
        """The table of the calls at the steps `chosen` of the watched runs."""
        following = [*chosen[1:], len(watched.levels) - 1]
        wanted = [[path[step] for path in watched.path] for step in following]
        starts = [path[0] for path in watched.path]
        bridges = [make_bridge(kind, sigmas, chosen, levels) for _ in starts]
        found = tables.fit_weights(starts, wanted, levels, bridges, self._velocity)
        ends = [path[-1] for path in watched.path]
        return FittedTable(
            kind=kind,
            model=self._fingerprint,
            guidance=self._request.guidance,
            sigmas=tuple(sigmas),
            computed=chosen if kind == SKIPPED else tuple(range(len(chosen))),
            levels=tuple(levels),
            weights=tuple(
                tuple(tuple(round(value, 5) for value in row) for row in bands) for bands in found.weights
            ),
            errors=_errors(found.ends, ends),
            rule_errors=_errors(rule, ends),
        )

    def _list_counts(self) -> list[int]:
        alone = Calibration(RULE)
        counts = {
            make_plan(Acceleration(level, calibration=alone), self._facts()).computed for level in LEVELS
        }
        return sorted(count for count in counts if count < self._request.steps)

    def _facts(self) -> RunFacts:
        return RunFacts(tuple(self._native(1)), regular=True, guidance=self._request.guidance)

    def _list_fast(self) -> list[int]:
        return sorted({max(4, round(self._request.steps / fewer)) for fewer in FEWER})

    def _count_calls(self) -> int:
        """Calls of the model for all that is watched, tried and fitted."""
        calls = self._request.steps * (1 + FINENESS)
        calls += 3 * sum(self._list_counts()) + 2 * sum(self._list_fast())
        return calls * len(self._subjects)

    def _native(self, fineness: int) -> list[float]:
        steps = self._request.steps * fineness
        return build_schedule("native", steps, self._tokens, self._request.mu).sigmas.tolist()

    def _run(self, number: int, model: Any, solver: Any, levels: list[float], calls: int = 0) -> Tensor:
        """The end of a whole run of a subject. calls: of the model, where not one a step."""
        end = self._sample(number, model, self._noise[number], solver, levels).cpu()
        self._progress.update(calls or len(levels) - 1)
        return end

    def _velocity(self, number: int, x: Tensor, sigma: float) -> Tensor:
        """One call of the model, as a run of one step."""
        caught: list[Tensor] = []

        def call(
            model: Any,
            x: Tensor,
            sigmas: Tensor,
            extra_args: Any = None,
            callback: Any = None,
            disable: Any = None,
        ) -> Tensor:
            denoised = model(x, sigmas[0] * x.new_ones([x.shape[0]]), **(extra_args or {}))
            caught.append(((x.float() - denoised.float()) / float(sigmas[0])).cpu())
            return x

        noise = x.to(self._empty.device) / sigma
        self._sample(number, self._model, noise, comfy.samplers.KSAMPLER(call), [sigma, 0.0])
        self._progress.update(1)
        return caught[0]

    def _sample(self, number: int, model: Any, noise: Tensor, solver: Any, levels: list[float]) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        subject = self._subjects[number]
        guide = Guide(model, subject.positive, self._negative, self._request.guidance)
        return guide.make().sample(
            noise, self._empty, solver, torch.tensor(levels), disable_pbar=True, seed=subject.seed
        )


def _errors(ends: Sequence[Tensor], wanted: Sequence[Tensor]) -> tuple[float, ...]:
    return tuple(round(tables.relative_error(end, true), 5) for end, true in zip(ends, wanted, strict=True))


def _repair(levels: list[float], path: list[Tensor], velocities: list[Tensor]) -> list[Tensor]:
    """x of Kleinod Fast's run as it stands at each level once the velocity there is known."""
    repaired = list(path[:1])
    for i in range(1, len(path)):
        change = (levels[i] - levels[i - 1]) / 2 * (velocities[i] - velocities[i - 1])
        repaired.append(path[i] + change)
    return repaired


class Tracer:
    """Writes down, step by step, what the cache would have seen and what the model then said."""

    def __init__(self) -> None:
        self.trace = fitting.Trace()
        self._signals: dict[Any, Tensor] = {}
        self._change: list[Tensor] = []

    def watch(self, model: Any) -> Any:
        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "kleinod.calibrate", self._predict)
        watched.set_model_patch_replace(self._first_block, "dit", "double_block", 0)
        return watched

    def _predict(self, executor: Any, x: Tensor, timestep: Tensor, *rest: Any, **named: Any) -> Tensor:
        self._change = []
        denoised = executor(x, timestep, *rest, **named)
        sigma = float(timestep.flatten()[0])
        if sigma > 0:
            change = float(torch.stack(self._change).max()) if self._change else None
            self.trace.add(sigma, x.float(), (x.float() - denoised.float()) / sigma, change)
        return denoised

    def _first_block(self, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        (first, _), _ = args["vec"]
        options = args.get("transformer_options", {})
        references = sum(options.get("reference_image_num_tokens", []))
        picture = args["img"][:, : args["img"].shape[1] - references]
        seen = signals.modulated_input(picture, first.scale, first.shift)
        uuids = options.get("uuids") or [None]
        for uuid, part in zip(uuids, seen.chunk(len(uuids)), strict=False):
            before = self._signals.get(uuid)
            if before is not None and before.shape == part.shape:
                self._change.append(signals.relative_change(part, before).max())
            self._signals[uuid] = part.clone()
        return extra["original_block"](args)
