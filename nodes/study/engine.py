"""Klein Compare's and Klein Calibrate's runs inside ComfyUI."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import comfyui_version
import torch
from torch import Tensor

from ..acceleration import calibration, signals
from ..acceleration.calibration_files import calibrations_folder
from ..acceleration.patch import KEY, count_blocks
from ..base import seams
from ..base.errors import InputError
from ..base.families import name_other_family
from ..base.values import Calibration
from ..model.engine import facts_of
from ..sampling.engine import sample_pictures
from ..sampling.request import SamplingRequest
from . import fitting, metrics
from .comparison import Candidate, Outcome

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

Tell = Callable[[str], None]
# Loading and compiling happen in the first steps ever run; they belong to no candidate.
WARM_UP_STEPS = 2


def compare(
    model: Any,
    positive: Any,
    negative: Any,
    vae: Any,
    request: SamplingRequest,
    candidates: Sequence[Candidate],
    tell: Tell = lambda text: None,
) -> list[Outcome]:
    """Run every candidate at the request's seed; the first is what the others are compared with.

    tell: gets a line before each run. An interrupt ends it as it ends any sampling.
    """
    seams.require(seams.STUDY)
    model = _unaccelerated(model)
    tell("warming up")
    sample_pictures(model, positive, negative, vae, replace(request, steps=WARM_UP_STEPS))
    outcomes: list[Outcome] = []
    whole = 0
    for number, candidate in enumerate(candidates):
        tell(f"{number + 1} of {len(candidates)}: {candidate.name}")
        meter = _Meter()
        asked = replace(request, steps=candidate.steps, scheduler=candidate.scheduler)
        started = _now()
        made = sample_pictures(
            meter.watch(_with_core_cache(model, candidate)), positive, negative, vae, asked,
            acceleration=candidate.acceleration,
        )  # fmt: skip
        seconds = _now() - started
        image = made.image[:1].float().cpu()
        whole = whole or meter.tokens
        first = outcomes[0].image if outcomes else image
        work, pattern = meter.tokens / max(whole, 1), ""
        if candidate.acceleration is not None and made.runs:
            records = made.runs[0].records
            work, pattern = sum(record.work for record in records) / len(records), made.runs[0].pattern
        likeness = float(metrics.psnr(image, first)[0]), float(metrics.ssim(image, first)[0])
        outcomes.append(Outcome(candidate, image, seconds, work, *likeness, pattern))
    return outcomes


def describe_machine(model: Any) -> dict[str, Any]:
    """What the pictures were made on and with: class and weights' type of the model, device, versions."""
    device = model.load_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = facts_of(model)
    return {
        "model": facts.family if facts else type(model.model).__name__,
        "weights": str(model.model_dtype()).removeprefix("torch."),
        "device": name,
        "torch": torch.__version__,
        "comfyui": comfyui_version.__version__,
    }


def _unaccelerated(model: Any) -> Any:
    """`model` without what Klein Apply Acceleration gave it: every run here brings its own."""
    plain = model.clone()
    plain.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    return plain


def _now() -> float:
    """Seconds, once the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _with_core_cache(model: Any, candidate: Candidate) -> Any:
    """With ComfyUI's EasyCache where the candidate is one; it gets a copy of x, into which it writes."""
    if candidate.core_threshold is None:
        return model
    seams.require(seams.RIVAL)
    from comfy_extras.nodes_easycache import EasyCacheNode

    def lend_a_copy(executor: Any, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        return executor(x.clone(), *rest, **named)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "kleinod.compare", lend_a_copy)
    return EasyCacheNode.execute(model, candidate.core_threshold, 0.15, 0.95, False).args[0]


class _Meter:
    """Counts the tokens that really enter the network's blocks."""

    def __init__(self) -> None:
        self.tokens = 0

    def watch(self, model: Any) -> Any:
        watched = model.clone()
        watched.set_model_patch(self._count, "post_input")
        return watched

    def _count(self, inputs: dict[str, Any]) -> dict[str, Any]:
        image, text = inputs["img"], inputs["txt"]
        self.tokens += image.shape[0] * (image.shape[1] + text.shape[1])
        return inputs


def calibrate(
    model: Any,
    positive: Any,
    negative: Any,
    vae: Any,
    request: SamplingRequest,
    name: str,
    tell: Tell = lambda text: None,
) -> tuple[Calibration, fitting.Fit]:
    """Sample every seed of the request uncached, watch the model, fit, and save under `name`.

    Raises InputError where the name makes no file, or the model has no FLUX.2 [klein] blocks.
    """
    seams.require(seams.STUDY)
    calibration.check_name(name)
    if count_blocks(model.model.diffusion_model) == (0, 0):
        raise InputError(
            f"Klein Calibrate reads FLUX.2 [klein]'s blocks, but the connected model is "
            f"{name_other_family(model) or 'one without blocks'}. Connect a Klein model."
        )
    model = _unaccelerated(model)
    traces: list[fitting.Trace] = []
    for number, seed in enumerate(request.seeds):
        tell(f"picture {number + 1} of {request.results}")
        tracer = _Tracer()
        asked = replace(request, seed=seed, results=1)
        sample_pictures(tracer.watch(model), positive, negative, vae, asked)
        traces.append(tracer.trace)
    value, fit = fitting.fit(name, traces)
    calibration.save(value, fit.data(), calibrations_folder())
    return value, fit


class _Tracer:
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
