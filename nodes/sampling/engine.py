"""Sampling and decoding inside ComfyUI: the core graph in one function.

With the default scheduler this is Flux2Scheduler + CFGGuider + RandomNoise + SamplerCustomAdvanced +
VAEDecode, bit for bit (image-to-image with strength mode `schedule`: VAEEncode and SplitSigmasDenoise as
well).

Results run one after another, each exactly the single run with its own seed: a batch would save little on a
model that fills a GPU with one picture, would need memory for all of them, and could not be interrupted in
between. All are sampled before any is decoded, so the model and the VAE change places in memory once.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ..acceleration.apply import watch_runs
from ..acceleration.chart import chart_image
from ..acceleration.report import COMPUTED, RunReport, describe_kinds, summarise_runs
from ..base import seams
from ..base.errors import InputError
from ..base.families import FLUX3_WAY, name_other_family
from ..base.flux2 import CELL, LATENT_CHANNELS
from ..base.notices import show
from ..base.pictures import check_image, check_mask, to_rgb, to_unit
from ..base.schedulers import KLEINOD_FAST, Solver
from ..base.values import Acceleration
from ..model.engine import facts_of
from ..model.facts import notice_processor
from . import checks
from .advice import list_notes, list_warnings, note_acceleration
from .fast import sample_fast
from .picture import fit_picture
from .report import Report
from .request import SamplingRequest
from .schedule import Schedule, explain_no_steps
from .timing import Clock

logger = logging.getLogger("kleinod.sampling")


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
    notes: tuple[str, ...] = ()

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

    def make(self) -> comfy.samplers.CFGGuider:
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
) -> Pictures:
    """Run a request on a MODEL and decode what comes out.

    model: a ModelPatcher, wrapped or patched by the caller as it likes: every result is one
    `CFGGuider.sample`, so an OUTER_SAMPLE wrapper sees each begin and end. sampler (SAMPLER) and sigmas
    (SIGMAS [steps + 1]) replace what the request's scheduler, mu and strength would give. acceleration: which
    work may be skipped; None and method none leave the model as it is.
    Raises InputError where an input does not fit FLUX.2 [klein], and where the first picture comes out as
    not-a-number.
    """
    seams.require(seams.SAMPLING)
    check_model(model)
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

    start = prepare_start(model, vae, request, latent, image)
    facts = facts_of(model)
    notice = notice_processor(facts, model.load_device.type, start.size)
    report = Report(
        request,
        start.size,
        batch=len(start.samples),
        from_picture=start.from_picture,
        notes=(
            *start.notes,
            *list_notes(request, facts, start.size, reads_negative),
            *([notice] if notice else []),
        ),
        warnings=tuple(list_warnings(request, facts)),
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
    watched = watch_runs(model, acceleration, schedule.sigmas)
    clock = Clock()
    guide = Guide(watched.model, positive, negative, request.guidance)
    if notice:
        show(notice)  # until the headline takes its place
    results = sample_results(guide, sampler, schedule.sigmas, start.latent, request, clock)
    clock.sampled()
    pixels = decode_each(vae, results)
    runs = watched.reports_of(schedule.sigmas, request.results)
    report = replace(
        report.with_warnings(*watched.off, *_spoilt_results(results, request)),
        schedule=schedule,
        solver=solver,
        timing=clock.read(),
        acceleration=tuple(summarise_runs(runs, _name_runs(request))) if watched.reports else (),
        skipped=runs[0].headline() if watched.reports and runs else "",
        notes=(*report.notes, *(note_acceleration(facts) if watched.reports else ())),
    )
    for warning in report.warnings:
        logger.warning(warning)
    latent = _output_latent(start.latent, results)
    return Pictures(pixels, latent, report, tuple(runs), watched.acceleration)


def check_model(model: Any) -> None:
    """Raises InputError unless the model is a FLUX.2 and works in its latent space."""
    latent_format = model.get_model_object("latent_format")
    if not isinstance(latent_format, comfy.latent_formats.Flux2):
        kind = type(model.model).__name__
        raise InputError(
            f"model is {kind} with {latent_format.latent_channels} latent channels, but Klein Sampler runs "
            "FLUX.2 models: connect Klein Loader, or Load Diffusion Model with a flux-2-klein file."
        )
    family = name_other_family(model)
    if family:
        way = FLUX3_WAY if "FLUX 3" in family else "ComfyUI's KSampler runs it"
        raise InputError(
            f"model is {family}, which has FLUX.2's latents but another schedule and other blocks, and Klein "
            f"nodes run FLUX.2 alone. {way}; for Klein nodes connect Klein Loader."
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
        return comfy.samplers.KSAMPLER(sample_fast)
    if solver.options:
        return comfy.samplers.ksampler(solver.sampler, dict(solver.options))
    return comfy.samplers.sampler_object(solver.sampler)


def sample_results(
    guide: Guide,
    sampler: Any,
    sigmas: Tensor,
    latent: dict[str, Any],
    request: SamplingRequest,
    clock: Clock,
) -> list[Tensor]:
    """One latent `[B, 128, h, w]` a seed. One progress bar and one preview serve them all.

    Raises InputError when the very first result is not-a-number: the others would be as well.
    """
    steps = len(sigmas) - 1
    show = latent_preview.prepare_callback(guide.model, steps * request.results)
    samples = latent["samples"]
    results: list[Tensor] = []
    for index, seed in enumerate(request.seeds):
        done = index * steps

        def on_step(step: int, x0: Tensor, x: Tensor, total: int, done: int = done) -> None:
            clock.tick(step)
            show(done + step, x0, x, steps * request.results)

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
        results.append(result.to(comfy.model_management.intermediate_device()))
        if index == 0 and not torch.isfinite(results[0]).all():
            raise InputError(
                f"The picture of seed {seed} came out as not-a-number. Most often the weight type is the "
                "cause: choose default or bf16 in the loader; else unplug LoRAs and acceleration one by one."
            )
    return results


def decode_each(vae: Any, results: list[Tensor]) -> Tensor:
    """IMAGE `[results * B, H, W, 3]`, decoded result by result: each is bit for bit what it would be alone.

    Out of memory is left to `VAE.decode`, which then works in tiles.
    """
    pixels = None
    for index, result in enumerate(results):
        comfy.model_management.throw_exception_if_processing_interrupted()
        decoded = vae.decode(result)
        decoded = decoded.reshape(-1, *decoded.shape[-3:])
        if len(results) == 1:
            return decoded
        if pixels is None:
            pixels = decoded.new_empty(len(results) * len(decoded), *decoded.shape[1:])
        pixels[index * len(decoded) : (index + 1) * len(decoded)] = decoded
    return pixels


def _start_from_image(vae: Any, image: Tensor) -> Start:
    check_image(image)
    words: list[str] = []
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
    notes = [f"Size {width}x{height} is the image's; width and height are not used."]
    if fit.describe():
        notes.append(fit.describe())
    notes += [f"The image came with {word}." for word in words]
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
    notes = ["Size {}x{} is the latent's; width and height are not used.".format(*Start(out).size)]
    if not filled:
        notes.append("The latent is empty, so the picture is made from noise alone and strength is not used.")
    if "noise_mask" in out:
        notes.append("The latent's mask is kept: only what it marks changes, in cells of 16 pixels.")
    return Start(out, filled, None, tuple(notes))


def _return_untouched(vae: Any, start: Start, report: Report) -> Pictures:
    count = report.request.results
    once = start.pixels if start.pixels is not None else decode_each(vae, [start.samples])
    reason = explain_no_steps(report.request.steps, report.request.strength)
    note = f"{reason}: nothing was sampled, the picture is as it came."
    latent = _output_latent(start.latent, [start.samples] * count)
    report = replace(report, notes=(*report.notes, note))
    return Pictures(once.repeat(count, 1, 1, 1) if count > 1 else once, latent, report)


def _output_latent(given: dict[str, Any], results: list[Tensor]) -> dict[str, Any]:
    out = {**given, "samples": results[0] if len(results) == 1 else torch.cat(results)}
    if len(results) > 1:
        out.pop("batch_index", None)  # the rows are no longer those of one batch's noise
    return out


def _spoilt_results(results: list[Tensor], request: SamplingRequest) -> list[str]:
    spoilt = [
        seed for seed, result in zip(request.seeds, results, strict=True) if not torch.isfinite(result).all()
    ]
    return [f"The result of seed {seed} came out as not-a-number; its picture is black." for seed in spoilt]


def _name_runs(request: SamplingRequest) -> list[str]:
    return [f"seed {seed}" for seed in request.seeds]


def context_width(model: Any) -> int | None:
    """Width of the conditioning the model reads; None where its class does not say."""
    params = getattr(model.model.diffusion_model, "params", None)
    return getattr(params, "context_in_dim", None)
