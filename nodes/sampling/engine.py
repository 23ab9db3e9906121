"""Sampling and decoding inside ComfyUI: the core graph in one function.

With the default scheduler this is Flux2Scheduler + CFGGuider + RandomNoise + SamplerCustomAdvanced +
VAEDecode, bit for bit (image-to-image with strength mode `schedule`: VAEEncode and SplitSigmasDenoise as
well).

Results run one after another, each exactly the single run with its own seed: a batch would save little on a
model that fills a GPU with one picture, would need memory for all of them, and could not be interrupted in
between. Each is decoded as soon as it is sampled: it can be seen, is safe from what comes later, and a Stop
hands on those that are done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..acceleration.apply import is_accelerated, watch_runs
from ..acceleration.calibration_files import tables_of
from ..acceleration.chart import chart_image
from ..acceleration.fingerprint import read_fingerprint
from ..acceleration.fitted import find_fast
from ..acceleration.report import COMPUTED, RunReport, describe_kinds, summarise_runs
from ..base import seams
from ..base.acceleration import FittedTable
from ..base.errors import InputError
from ..base.families import FLUX3_WAY, name_other_family
from ..base.flux2 import CELL, LATENT_CHANNELS
from ..base.notices import show
from ..base.pictures import check_image, check_mask, to_rgb, to_unit
from ..base.schedulers import KLEINOD_FAST, Solver
from ..base.sentences import Sentence, join, say
from ..base.values import Acceleration
from ..model.engine import facts_of
from ..model.facts import notice_processor
from . import checks
from .advice import (
    list_notes,
    list_warnings,
    note_acceleration,
    note_image_guidance,
    note_size,
    warn_of_areas,
    warn_of_unread,
)
from .fast import sample_fast
from .image_guidance import guide_by_references, holds_references
from .learning import PlainRun, watch_plain_run
from .patches import ForeignPatches, lend_to_easycache
from .picture import fit_picture
from .progress import RunProgress
from .report import Report
from .request import SamplingRequest
from .schedule import Schedule, explain_no_steps
from .timing import Clock

comfy = seams.modules(
    "comfy.latent_formats",
    "comfy.model_management",
    "comfy.sample",
    "comfy.samplers",
    "comfy.utils",
)

InterruptProcessingException = seams.find("comfy.model_management:InterruptProcessingException")

logger = logging.getLogger("kleinod.sampling")

KeepResult = Callable[[Tensor, int], None]
"""Gets each finished result, IMAGE `[B, H, W, 3]`, and its seed."""


@dataclass(frozen=True)
class Pictures:
    """image: IMAGE `[results * batch, H, W, 3]`, result by result. latent: LATENT of the same order.

    runs: what each result's run computed and reused, empty where nothing was sampled. acceleration: the
    settings behind them, None without any.
    """

    image: Tensor
    latent: dict[str, Any]
    report: Report
    runs: tuple[RunReport, ...] = ()
    acceleration: Acceleration | None = None

    def data(self) -> str:
        """The runs step by step, with the settings behind them, as JSON."""
        seeds = self.report.request.seeds
        runs = [{"seed": seed, **run.data()} for seed, run in zip(seeds, self.runs, strict=False)]
        settings = None if self.acceleration is None else asdict(self.acceleration)
        return json.dumps({"acceleration": settings, "runs": runs})

    def strip(self) -> dict[str, list[dict[str, Any]]]:
        """What the page draws on the node: a row of steps a result; no rows where every step was computed."""
        names = _name_runs(self.report.request)
        rows = [
            {
                "label": name,
                "pattern": run.pattern,
                "line": run.headline(),
                "kinds": describe_kinds(run.pattern),
            }
            for name, run in zip(names, self.runs, strict=False)
        ]
        skipped = any(set(row["pattern"]) - {COMPUTED} for row in rows)
        return {"kleinod_runs": rows if skipped else []}

    def chart(self) -> Tensor:
        """The runs as a picture, IMAGE `[1, H, W, 3]`."""
        return chart_image(self.runs, _name_runs(self.report.request))


@dataclass(frozen=True)
class Start:
    """What a run begins from. `from_picture`: strength counts. `pixels`: the fitted image, where one came."""

    latent: dict[str, Any]
    from_picture: bool = False
    pixels: Tensor | None = None
    notes: tuple[Sentence, ...] = ()

    @property
    def samples(self) -> Tensor:
        return self.latent["samples"]

    @property
    def size(self) -> tuple[int, int]:
        return self.samples.shape[3] * CELL, self.samples.shape[2] * CELL

    @property
    def tokens(self) -> int:
        return self.samples.shape[2] * self.samples.shape[3]


@dataclass(frozen=True)
class Guide:
    """What steers every result; `make` gives each its own CFGGuider, so no state passes to the next."""

    model: Any
    positive: Any
    negative: Any
    guidance: float

    def make(self) -> Any:
        guider = comfy.samplers.CFGGuider(self.model)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(self.guidance)
        return guider


def sample_pictures(
    model: Any,
    positive: Any,
    negative: Any,
    vae: Any,
    request: SamplingRequest,
    *,
    latent: dict[str, Any] | None = None,
    image: Tensor | None = None,
    sampler: Any = None,
    sigmas: Tensor | None = None,
    acceleration: Acceleration | None = None,
    keep: KeepResult | None = None,
) -> Pictures:
    """Run a request on a MODEL and decode what comes out.

    model: a ModelPatcher, wrapped or patched by the caller as it likes: every result is one
    `CFGGuider.sample`, so an OUTER_SAMPLE wrapper sees each begin and end. sampler (SAMPLER) and sigmas
    (SIGMAS [steps + 1]) replace what the request's scheduler, mu and strength would give. acceleration: which
    work may be skipped; None and method none leave the model as it is. keep: is handed every result as soon
    as it is done; ComfyUI's interrupt then ends the run with the finished ones, and is raised only where
    there is none. Without `keep` it is always raised.
    Raises InputError where an input does not fit FLUX.2 [klein], and where the first picture comes out as
    not-a-number.
    """
    seams.require(seams.SAMPLING)
    check_model(model)
    patches = ForeignPatches(model)
    patches.check()
    checks.check_vae(vae)
    checks.check_one_source(latent, image)
    width = context_width(model)
    checks.check_conditioning("positive", positive, width)
    # A node on the model may have both prompts run where guidance alone would not (core's NAG).
    reads_negative = request.guided or bool(model.model_options.get("disable_cfg1_optimization", False))
    checks.check_conditioning("negative", negative, width if reads_negative else None)
    checks.check_references("positive", positive)
    if reads_negative:
        checks.check_references("negative", negative)

    shown = holds_references(positive)
    start = prepare_start(model, vae, request, latent, image)
    given = {"positive": positive, "negative": negative}
    for name, conditioning in given.items():
        # Also where the negative prompt is not read: ComfyUI gives the prompt a twin of each of its areas.
        checks.check_areas(name, conditioning, start.size)
    facts = facts_of(model)
    table = None
    if sampler is None and sigmas is None and not is_accelerated(model, acceleration):
        table = _find_fast(model, request, start)
    notice = notice_processor(facts, model.load_device.type, start.size)
    report = Report(
        request,
        start.size,
        batch=len(start.samples),
        from_picture=start.from_picture,
        notes=(
            *start.notes,
            *list_notes(request, facts, start.size, reads_negative, table),
            *note_image_guidance(request, shown),
            *([notice] if notice else []),
        ),
        warnings=(
            *list_warnings(request, facts),
            *patches.warn(),
            *warn_of_unread(
                given if reads_negative else {"positive": positive},
                "noise_mask" in start.latent,
                reads_guidance(model),
            ),
            *warn_of_areas(given, start.size),
        ),
        reads_negative=reads_negative,
    )
    if start.from_picture and not request.steps_run and sigmas is None:
        return _return_untouched(vae, start, report)

    schedule = (
        Schedule(sigmas, None) if sigmas is not None else request.schedule(start.tokens, start.from_picture)
    )
    solver = None
    if sampler is None:
        solver = request.recipe.solver_for(schedule.steps)
        sampler = build_sampler(solver)
    if table is not None:
        schedule = Schedule(torch.tensor(table.levels), schedule.mu)
        sampler = comfy.samplers.KSAMPLER(sample_fast, {"table": table})
    model = lend_to_easycache(model)
    if shown:
        model = guide_by_references(model, request.image_guidance)
    watched = watch_runs(model, acceleration, schedule.sigmas)
    clock = Clock()
    guide = Guide(watched.model, positive, negative, request.guidance)
    early = [words for words in (notice, note_size(facts, start.size)) if words]
    if early:
        show(join("\n", early))  # until the headline takes its place
    lesson = None
    if not start.from_picture and not is_accelerated(model, acceleration):
        lesson = watch_plain_run(
            guide.model, positive, sampler, schedule.sigmas, start.latent, request.guidance
        )
    made = make_results(guide, sampler, schedule.sigmas, start.latent, vae, request, clock, keep, lesson)
    if made.stopped:
        report = replace(report, asked=request.results)
        request = replace(request, results=len(made.latents))
    runs = watched.reports_of(schedule.sigmas, request.results)
    report = replace(
        report.with_warnings(*watched.off, *_spoilt_results(made.latents, request)),
        request=request,
        schedule=_as_run(schedule, runs),
        solver=solver,
        timing=clock.read(),
        acceleration=tuple(summarise_runs(runs, _name_runs(request))) if watched.reports else (),
        skipped=runs[0].headline() if watched.reports and runs else Sentence(""),
        notes=(
            *report.notes,
            *(note_acceleration(facts) if watched.reports else ()),
            *(lesson.teach() if lesson is not None else ()),
        ),
    )
    for warning in report.warnings:
        logger.warning(warning)
    latent = _output_latent(start.latent, made.latents)
    return Pictures(made.pixels, latent, report, tuple(runs), watched.acceleration)


def _find_fast(model: Any, request: SamplingRequest, start: Start) -> FittedTable | None:
    """What was fitted to this model for a run of Kleinod Fast as asked for."""
    runs = request.steps_run or not start.from_picture
    if request.recipe.solver is not KLEINOD_FAST or not runs:
        return None
    sigmas = request.schedule(start.tokens, start.from_picture).sigmas.tolist()
    return find_fast(tables_of(read_fingerprint(model)), sigmas, request.guidance)


def _as_run(schedule: Schedule, runs: list[RunReport]) -> Schedule:
    """The schedule, or the shorter one that acceleration had the runs take."""
    if not runs or not runs[0].shortened:
        return schedule
    return replace(schedule, sigmas=torch.tensor([record.sigma for record in runs[0].records] + [0.0]))


def check_model(model: Any) -> None:
    """Raises InputError unless the model is a FLUX.2 and works in its latent space."""
    latent_format = model.get_model_object("latent_format")
    if not isinstance(latent_format, comfy.latent_formats.Flux2):
        kind = type(model.model).__name__
        raise InputError(
            say(
                "model is %1 with %2 latent channels, but Klein Sampler runs "
                "FLUX.2 models: connect Klein Loader, or Load Diffusion Model with a flux-2-klein file.",
                kind,
                latent_format.latent_channels,
            )
        )
    family = name_other_family(model)
    if family:
        way = FLUX3_WAY if "FLUX 3" in family else say("ComfyUI's KSampler runs it")
        raise InputError(
            say(
                "model is %1, which has FLUX.2's latents but another schedule and other blocks, and Klein "
                "nodes run FLUX.2 alone. %2; for Klein nodes connect Klein Loader.",
                family,
                way,
            )
        )


def prepare_start(
    model: Any, vae: Any, request: SamplingRequest, latent: dict[str, Any] | None, image: Tensor | None
) -> Start:
    """An empty latent of the requested size, or the given latent or image, whose own size then counts."""
    if image is not None:
        return _start_from_image(vae, image)
    if latent is not None:
        return _start_from_latent(model, latent)
    shape = [1, LATENT_CHANNELS, request.height // CELL, request.width // CELL]
    return Start({"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())})


def build_sampler(solver: Solver) -> Any:
    """The SAMPLER of a solver, the same object that ComfyUI's sampler nodes make."""
    if solver is KLEINOD_FAST:
        return comfy.samplers.KSAMPLER(sample_fast, {"tell": show})
    if solver.options:
        return comfy.samplers.ksampler(solver.sampler, dict(solver.options))
    return comfy.samplers.sampler_object(solver.sampler)


@dataclass(frozen=True)
class Results:
    """latents: one `[B, 128, h, w]` a result. pixels: IMAGE `[results * B, H, W, 3]`. stopped: by the user,
    before or after the last one was done."""

    latents: list[Tensor]
    pixels: Tensor
    stopped: bool = False


def make_results(
    guide: Guide,
    sampler: Any,
    sigmas: Tensor,
    latent: dict[str, Any],
    vae: Any,
    request: SamplingRequest,
    clock: Clock,
    keep: KeepResult | None = None,
    lesson: PlainRun | None = None,
) -> Results:
    """Sample and decode result by result: each is bit for bit what it would be alone. `keep` as in
    `sample_pictures`. lesson: watches the first one.

    Out of memory is left to `VAE.decode`, which then works in tiles.
    """
    steps, count = len(sigmas) - 1, request.results
    progress = RunProgress(guide.model, steps * count, count)
    latents: list[Tensor] = []
    pixels: Tensor | None = None
    sampled = sample_results(guide, sampler, sigmas, latent, request, clock, progress, lesson)
    for index, seed in enumerate(request.seeds):
        try:
            result = next(sampled)
            comfy.model_management.throw_exception_if_processing_interrupted()
            with clock.decoding():
                decoded = decode(vae, result)
            latents.append(result)
            if count == 1:
                return Results(latents, decoded)
            if pixels is None:
                pixels = decoded.new_empty(count * len(decoded), *decoded.shape[1:])
            pixels[index * len(decoded) : (index + 1) * len(decoded)] = decoded
            if keep is not None:
                keep(decoded, seed)
            progress.show_finished((index + 1) * steps, decoded[0], index)
            # Left for the next node, a Stop during the last decoding would lose them all.
            comfy.model_management.throw_exception_if_processing_interrupted()
        except InterruptProcessingException:
            if keep is None or pixels is None or not latents:
                raise
            return Results(latents, pixels[: len(latents) * len(pixels) // count].clone(), True)
    return Results(latents, pixels)


def sample_results(
    guide: Guide,
    sampler: Any,
    sigmas: Tensor,
    latent: dict[str, Any],
    request: SamplingRequest,
    clock: Clock,
    progress: RunProgress,
    lesson: PlainRun | None = None,
) -> Iterator[Tensor]:
    """One latent `[B, 128, h, w]` a seed, each sampled when it is asked for.

    Raises InputError when the very first result is not-a-number: the others would be as well.
    """
    steps = len(sigmas) - 1
    samples = latent["samples"]
    for index, seed in enumerate(request.seeds):

        def on_step(step: int, x0: Tensor, x: Tensor, total: int, index: int = index) -> None:
            # total: of the run as it is, which acceleration may have made shorter.
            clock.tick(step)
            if lesson is not None and index == 0:
                lesson.note(step, x, x0)
            progress.show_step(index * steps + (step + 1) * steps // total, x0, index)

        result = guide.make().sample(
            comfy.sample.prepare_noise(samples, seed, latent.get("batch_index")),
            samples,
            sampler,
            sigmas.clone(),  # UniPC writes into them
            denoise_mask=latent.get("noise_mask"),
            callback=on_step,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        result = result.to(comfy.model_management.intermediate_device())
        if index == 0 and not torch.isfinite(result).all():
            raise InputError(
                say(
                    "The picture of seed %1 came out as not-a-number. "
                    "Most often the weight type is the cause: choose default or bf16 in the loader; "
                    "else unplug LoRAs and acceleration one by one.",
                    seed,
                )
            )
        yield result


def decode(vae: Any, result: Tensor) -> Tensor:
    """One result's latent as IMAGE `[B, H, W, 3]`."""
    decoded = vae.decode(result)
    return decoded.reshape(-1, *decoded.shape[-3:])


def _start_from_image(vae: Any, image: Tensor) -> Start:
    check_image(image)
    words: list[Sentence] = []
    pixels = to_rgb(to_unit(image, "image", words), "white", words)
    fit = fit_picture(image.shape[2], image.shape[1])
    if fit.scaled != fit.given:
        moved = comfy.utils.common_upscale(pixels.movedim(-1, 1), *fit.scaled, "lanczos", "disabled")
        pixels = moved.movedim(1, -1)
    left, top = fit.offset
    width, height = fit.cropped
    # Cut here and not by the VAE: taef2 believes it works on cells of 8 pixels and would fail on 264.
    pixels = pixels[:, top : top + height, left : left + width]
    samples = vae.encode(pixels)
    checks.check_encoded(samples, width, height)
    notes = [say("Size %1x%2 is the image's; width and height are not used.", width, height)]
    if fit.describe():
        notes.append(fit.describe())
    notes += [say("The image came with %1.", word) for word in words]
    return Start({"samples": samples}, True, pixels, tuple(notes))


def _start_from_latent(model: Any, latent: dict[str, Any]) -> Start:
    out = dict(latent)
    ratios = out.pop("downscale_ratio_spacial", None), out.pop("downscale_ratio_temporal", None)
    samples = out["samples"]
    if not getattr(samples, "is_nested", False):
        # Empty latents of other models are converted as every core sampler does.
        samples = comfy.sample.fix_empty_latent_channels(model, samples, *ratios)
    checks.check_latent(samples)
    if out.get("noise_mask") is not None:
        check_mask(out["noise_mask"], "The mask of latent")
    out["samples"] = samples
    filled = bool(torch.count_nonzero(samples))
    notes = [say("Size %1x%2 is the latent's; width and height are not used.", *Start(out).size)]
    if not filled:
        notes.append(
            say("The latent is empty, so the picture is made from noise alone and strength is not used.")
        )
    if "noise_mask" in out:
        notes.append(say("The latent's mask is kept: only what it marks changes, in cells of 16 pixels."))
    return Start(out, filled, None, tuple(notes))


def _return_untouched(vae: Any, start: Start, report: Report) -> Pictures:
    count = report.request.results
    once = start.pixels if start.pixels is not None else decode(vae, start.samples)
    reason = explain_no_steps(report.request.steps, report.request.strength)
    note = say("%1: nothing was sampled, the picture is as it came.", reason)
    latent = _output_latent(start.latent, [start.samples] * count)
    report = replace(report, notes=(*report.notes, note))
    return Pictures(once.repeat(count, 1, 1, 1) if count > 1 else once, latent, report)


def _output_latent(given: dict[str, Any], results: list[Tensor]) -> dict[str, Any]:
    out = {**given, "samples": results[0] if len(results) == 1 else torch.cat(results)}
    if len(results) > 1:
        out.pop("batch_index", None)  # the rows are no longer those of one batch's noise
    return out


def _spoilt_results(results: list[Tensor], request: SamplingRequest) -> list[Sentence]:
    spoilt = [
        seed for seed, result in zip(request.seeds, results, strict=True) if not torch.isfinite(result).all()
    ]
    return [
        say("The result of seed %1 came out as not-a-number; its picture is black.", seed) for seed in spoilt
    ]


def _name_runs(request: SamplingRequest) -> list[str]:
    return [f"seed {seed}" for seed in request.seeds]


def reads_guidance(model: Any) -> bool:
    """Whether the model has an embedding for guidance, as FLUX.2 [dev] has and [klein] has not."""
    params = getattr(model.model.diffusion_model, "params", None)
    return bool(getattr(params, "guidance_embed", False))


def context_width(model: Any) -> int | None:
    """Width of the conditioning the model reads; None where its class does not say."""
    params = getattr(model.model.diffusion_model, "params", None)
    return getattr(params, "context_in_dim", None)
